"""What one request comes to: the questions that must be granted, and what is done with its answer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from sidecar.mlflow.facts import Change, Facts
from sidecar.mlflow.upstream import Upstream
from sidecar.mlflow.words import Words
from sidecar.routes import Registry, Row

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One question; all of a request's must be granted."""

    action: str
    resource: str
    attributes: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A list: `items` of the answer, each by its name in the inventory."""

    items: str
    named: Callable[[Told], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request asks, and what is done with it.

    Attributes:
        wants: What must be granted.
        some: Instead: of these, by the caller's own word for each, some must be; the others are left out of the body.
        field: The body's field that holds those words.
        shown: The answer is a list, of which the caller sees what they may.
        names: What the answer turns out to be about must be granted as well.
        trims: Versions inside the answer, of which the caller sees what they may.
        first: What the inventory must hold before the server acts.
        learns: What is learnt from the answer.
    """

    wants: tuple[Want, ...] = ()
    some: Mapping[str, Want] = field(default_factory=dict)
    field: str = ""
    shown: Shown | None = None
    names: Callable[[Told], Want] | None = None
    trims: tuple[str, ...] = ()
    first: tuple[Change, ...] = ()
    learns: Callable[[Told], tuple[Change, ...]] | None = None

    @property
    def whole(self) -> bool:
        """Whether the answer must come whole, because something is done with it."""
        return bool(self.shown or self.names or self.trims or self.learns)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """One request, and whom to ask about it."""

    row: Row
    words: Words
    registry: Registry
    server: str
    upstream: Upstream
    facts: Facts
    subject: str

    def want(self, resource: str, action: str = "", **attributes: str) -> Want:
        """Return the question for `resource`; the row's action unless another one is given."""
        given: Attributes = {f"request.{key}": value for key, value in attributes.items()}
        return Want(action=action or self.row.action, resource=resource, attributes=given)

    def of(self, kind: str, experiment: str) -> str:
        """Return the name of an experiment, of its runs, or of their bytes."""
        return f"{kind}/{self.registry.name}/{experiment}"

    @property
    def verb(self) -> str:
        """What the row does."""
        return self.row.action.partition(".")[2]


Meaning = Callable[[About], Awaitable[Plan]]
