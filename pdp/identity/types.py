"""The values this room hands out: a verified identity, an asserted one, or a refusal.

`VerifiedIdentity` carries a seal that only this package holds. It cannot be constructed, replaced, unpickled or
subclassed elsewhere; a copy is the value itself. What a trusted caller merely *says* about a subject is another type.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Final, NoReturn, Self

from pdp.errors import Reason
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.names import Principal
from pdp.model.request import CredentialFacts, Party

_SEAL: Final = object()
"""Held by `pdp.identity` alone; `tests/unit/identity/test_types.py` searches the tree for other uses of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a credential was not accepted. `detail` is for the audit record, never for the caller (IDENTITY.md ER-1).

    `dpop` says that a DPoP proof is what the caller should have come with, or come with right.
    """

    reason: Reason
    detail: str = ""
    dpop: bool = False


class Sealed:
    """A value that only this package can make: no pickle, no subclass, no second object with other contents."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a verified value cannot be pickled: bytes from outside would become an identity")


def check_seal(seal: object) -> None:
    """Refuse a construction from outside this package.

    Raises:
        TypeError: the seal is not ours.
    """
    if seal is not _SEAL:
        raise TypeError("only pdp.identity makes verified values; authenticate the credential instead")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity(Sealed):
    """Who is asking, as proved by a token, a client certificate, or both.

    `actors` is the delegation chain, current actor first. `workload` comes from the client certificate. `expires_at_s` is
    the first second in which the credential is refused, leeway included; 0 = as long as the connection. `attributes` are
    the `subject.*` values which the issuer's entry takes from the token.
    """

    party: Party
    actors: tuple[Party, ...] = ()
    workload: Principal | None = None
    facts: CredentialFacts
    expires_at_s: int = 0
    issuer: str = ""
    attributes: Attributes = field(default_factory=lambda: NO_ATTRIBUTES, hash=False)
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        check_seal(seal)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a verified identity has no other kinds")

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a verified identity is not restored from a state")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertedIdentity:
    """A subject that a verified caller speaks for: believed only where that caller holds `decision.assert`."""

    by: VerifiedIdentity
    party: Party
    actors: tuple[Party, ...] = ()

    def __post_init__(self) -> None:
        if type(self.by) is not VerifiedIdentity:
            raise TypeError("only a verified identity can assert another")
