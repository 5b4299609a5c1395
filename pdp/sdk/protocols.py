"""What asks: the least of a client that guards, filesystems and tests of users rely on."""

from typing import Protocol, Unpack

from pdp.sdk.values import Circumstances, Decision


class Checks(Protocol):
    """`Client`, `LocalClient`, or a test's own."""

    @property
    def world_seq(self) -> int:
        """The highest world seen."""
        ...

    @property
    def one_identity(self) -> bool:
        """True if every question is asked by the same credential, whoever calls."""
        ...

    def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision."""
        ...


class AsyncChecks(Protocol):
    """`AsyncClient`, or a test's own."""

    async def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision."""
        ...
