"""The inventory: what an asset is, which are built in, and what one must be whatever the vocabulary says."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pdp.change.proposal import check_message
from pdp.errors import BadRequestError
from pdp.model.attributes import Attributes, AttributeType, Value, check_value
from pdp.model.names import ENVIRONMENTS, Resource, check_grouping_name

DEFAULT_SENSITIVITY: Final = "normal"
REVIEW_DATE: Final = "review_date"
"""The attribute that says when an asset has to be looked at again."""
SENSITIVITIES: Final = ("high", "normal", "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A registered asset; `attributes` carry their full names (`resource.environment`)."""

    resource: Resource
    attributes: Attributes

    @property
    def environment(self) -> str:
        """`dev`, `test`, `staging` or `prod`."""
        return str(self.attributes["resource.environment"])

    @property
    def segment(self) -> str | None:
        """The segment that the inventory places the asset in, if any."""
        value = self.attributes.get("resource.segment")
        return str(value) if value is not None else None

    @property
    def sensitivity(self) -> str:
        """`high`, `normal` or `low`; it bounds how stale a world may decide on the asset."""
        return str(self.attributes.get("resource.sensitivity", DEFAULT_SENSITIVITY))

    @property
    def digest(self) -> str:
        """The content digest that the inventory records, or empty."""
        return str(self.attributes.get("resource.digest", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """That an asset was taken out of use: in which entry, by whom, and why; a name in use again is not retired."""

    seq: int
    by: str
    reason: str

    def __post_init__(self) -> None:
        for text in (self.by, self.reason):
            check_message(text)
        if type(self.seq) is not int:
            raise BadRequestError("an entry has a number")


def _builtin(name: str) -> Asset:
    attributes = MappingProxyType({"resource.environment": "prod", "resource.sensitivity": "high"})
    return Asset(resource=Resource.parse(name), attributes=attributes)


BUILTIN_ASSETS: Final[Mapping[str, Asset]] = MappingProxyType(
    {
        name: _builtin(name)
        for name in ("policy/main", "asset/all", "lock/all", "audit/all", "decision/main", "replica/all", "key/all")
    }
)
"""What administration acts on: always registered, in `prod`, never segmented (POLICY.md section 2)."""


def registrable(name: str) -> Resource:
    """Return the name parsed; a built-in or malformed one is refused."""
    if name in BUILTIN_ASSETS:
        raise BadRequestError(f"`{name}` is built in and cannot be registered")
    return Resource.parse(name)


def full_names(attributes: Mapping[str, Any]) -> Attributes:
    """Return attributes as an entry spells them under their full names, lists frozen."""
    return {f"resource.{key}": _value(value) for key, value in attributes.items()}


def _value(value: Any) -> Value:
    return tuple(value) if type(value) is list else value


_KINDS: Final[Mapping[type, AttributeType]] = MappingProxyType(
    {
        bool: AttributeType.BOOL,
        int: AttributeType.INT,
        float: AttributeType.DOUBLE,
        str: AttributeType.STRING,
        tuple: AttributeType.LIST,
    }
)


def check_placement(values: Attributes) -> None:
    """Refuse an asset without a known environment, or with a sensitivity or segment that is none."""
    if values.get("resource.environment") not in ENVIRONMENTS:
        raise BadRequestError(f"an asset needs an environment: one of {', '.join(ENVIRONMENTS)}")
    if values.get("resource.sensitivity", DEFAULT_SENSITIVITY) not in SENSITIVITIES:
        raise BadRequestError(f"`sensitivity` is one of {', '.join(SENSITIVITIES)}")
    segment = values.get("resource.segment")
    if segment is not None:
        check_grouping_name(str(segment))


def held_asset(name: str, attributes: Mapping[str, Any]) -> Asset:
    """Return an asset that a world held.

    It was checked against the vocabulary of its day, which may have dropped a word since. Asking today's again would make
    every snapshot after such a revision unreadable, where the log itself folds (law: `from_state(to_state(w)) == w`).
    """
    values = full_names(attributes)
    for key, value in values.items():
        check_value(key, value, _KINDS[type(value)])  # an instant is text here
    check_placement(values)
    return Asset(resource=registrable(name), attributes=MappingProxyType(values))
