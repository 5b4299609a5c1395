"""Changing the policy: a pack is checked whole and kept as a proposal; activating it appends the difference to the log."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pdp.engine.casbin_text import Row
from pdp.engine.findings import PackRefused
from pdp.engine.pack import Pack, load_pack, rows_digest
from pdp.errors import BadRequestError, ConflictError, PortcullisError, Reason
from pdp.limits import MAX_PACK_FILE_BYTES, MAX_PACK_FILES, MAX_PROPOSALS
from pdp.model.names import printable
from pdp.replica import Replica
from pdp.service.genesis import GENESIS_FILE
from pdp.service.policy_tests import TestResult, run_tests
from pdp.service.replicate import Publisher
from pdp.world import Policy, World

KIND: Final = "policy"


class TestsFailed(PortcullisError):  # noqa: N818 - a door's word, as `PackRefused`
    """A pack that compiles and whose own tests disagree with it; `findings` holds one line for each."""

    def __init__(self, failed: Sequence[TestResult]) -> None:
        super().__init__(
            Reason.POLICY_REFUSED,
            f"the pack is refused: {len(failed)} of its own tests fail",
            advice="correct the rules or the tests; nothing was changed",
        )
        self.findings = tuple(
            f"{test.file}:{test.line}:1: `{test.name}`: expected {test.expected}, got {test.actual}" for test in failed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A pack that passed: its difference to the policy `revision` that was live at world `base_seq`."""

    id: str
    revision: str
    base_seq: int
    payload: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def rows_added(self) -> int:
        """Rows that the live policy does not have."""
        return len(self.payload["added"])

    @property
    def rows_removed(self) -> int:
        """Rows that only the live policy has."""
        return len(self.payload["removed"])

    @property
    def changes(self) -> bool:
        """False if the pack is what is live."""
        texts = (self.payload["model"], self.payload["vocabulary"])
        return bool(self.rows_added or self.rows_removed or any(text is not None for text in texts))


class Policies:
    """Proposes, activates and shows the policy."""

    def __init__(self, *, replica: Replica, publisher: Publisher, new_id: Callable[[], str]) -> None:
        self._replica = replica
        self._publisher = publisher
        self._new_id = new_id
        self._proposals: OrderedDict[str, Proposal] = OrderedDict()

    async def propose(self, files: Mapping[str, bytes], *, message: str) -> Proposal:
        """Check a pack whole, run its tests, and keep it.

        Raises:
            PackRefused, TestsFailed: with every finding; nothing is kept.
            BadRequestError: too many files, or one too large.
        """
        _check_sizes(files)
        world = self._replica.world
        pack = await asyncio.to_thread(_checked, files)
        proposal = Proposal(
            id=self._new_id(),
            revision=world.revision,
            base_seq=world.seq,
            payload=_difference(world.policy, pack, message),
            warnings=tuple(map(str, pack.warnings)),
        )
        self._proposals[proposal.id] = proposal
        while len(self._proposals) > MAX_PROPOSALS:
            self._proposals.popitem(last=False)
        return proposal

    async def activate(self, proposal_id: str, *, author: str) -> World:
        """Make a proposal the live policy and return the world that holds it.

        Raises:
            PortcullisError: `not_found`, or `conflict` if the live policy is no longer the one it was compared with.
        """
        proposal = self._proposals.get(proposal_id)
        if proposal is None:
            message = f"no proposal `{printable(proposal_id)}` waits here"
            raise PortcullisError(Reason.NOT_FOUND, message, advice="propose the pack again")
        while True:
            world = self._replica.world
            if proposal.revision != world.revision:
                self._proposals.pop(proposal_id, None)
                message = "another policy has become live since this was proposed"
                advice = "propose the pack again and look at the difference"
                raise PortcullisError(Reason.CONFLICT, message, advice=advice)
            if await self._activated(proposal, world, author):
                break
        self._proposals.pop(proposal_id, None)
        return self._replica.world

    async def _activated(self, proposal: Proposal, world: World, author: str) -> bool:
        """Publish `proposal` on exactly `world`; False if another entry came first, so that its policy is looked at again.

        Without the number, a proposal of rows could follow one of words that waited beside it: both fit, and nobody has
        compiled, tested or approved the two together.
        """
        if not proposal.changes:
            return True
        try:
            await self._publisher.publish(KIND, proposal.payload, author=author, expected_seq=world.seq)
        except ConflictError:
            if self._replica.world is world:
                raise  # what came first cannot be taken in here: asking again would not end
            return False
        return True

    def live(self) -> World:
        """Return the world whose policy is live.

        Raises:
            PortcullisError: `not_found` before genesis.
        """
        world = self._replica.world
        if world.policy is None:
            raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
        return world


def _check_sizes(files: Mapping[str, bytes]) -> None:
    if len(files) > MAX_PACK_FILES:
        raise BadRequestError(f"a pack has at most {MAX_PACK_FILES} files")
    for path, content in files.items():
        if len(content) > MAX_PACK_FILE_BYTES:
            raise BadRequestError(f"`{printable(path)}` has more than {MAX_PACK_FILE_BYTES} bytes")


def _checked(files: Mapping[str, bytes]) -> Pack:
    """Parse, compile and test a pack; in a thread, since it may take seconds."""
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        raise PackRefused(pack)
    failed = [result for result in run_tests(pack, pack.snapshot) if not result.passed]
    if failed:
        raise TestsFailed(failed)
    return pack


def _difference(policy: Policy | None, pack: Pack, message: str) -> dict[str, Any]:
    """Return the payload of the entry that turns `policy` into what `pack` says.

    The first administrator's rows come from genesis, not from a pack: a pack leaves them alone unless it brings a file of
    that name, so that applying one never locks everybody out.
    """
    live = {_key(row): row for row in (policy.snapshot.rows if policy else ())}
    wanted = {_key(row): row for row in pack.rows}
    if not any(row.file == GENESIS_FILE for row in pack.rows):
        wanted |= {key: row for key, row in live.items() if row.file == GENESIS_FILE}
    return {
        "model": _changed(policy.model_text if policy else None, pack.model_text),
        "vocabulary": _changed(policy.vocabulary_text if policy else None, pack.vocabulary_text),
        "added": [row.to_json() for key, row in wanted.items() if key not in live],
        "removed": [row.to_json() for key, row in live.items() if key not in wanted],
        "rows_digest": rows_digest(wanted.values()).hex(),
        "message": message,
    }


def _key(row: Row) -> tuple[str, str, tuple[str, ...]]:
    return row.id, row.section, row.fields


def _changed(old: str | None, new: str) -> str | None:
    return None if old == new else new
