"""What a pack would do to the policy that is live, found out before anybody is asked: for reviewers, and for CI.

The change is made as proposing it makes it (rows of genesis, edits and lent access stay), weighed as the PDP weighs it, and
asked about as activating it asks. Nothing is sent and nothing is decided for real: who may is asked of the policy itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pdp.change.facts import Facts
from pdp.decide import GRANTS, decide
from pdp.engine.classes import place, subjects, uses_of
from pdp.engine.compiler import Snapshot
from pdp.engine.diff import Cell, diff
from pdp.engine.pack import Pack
from pdp.errors import PortcullisError, Reason
from pdp.model.attributes import Attributes
from pdp.model.names import Action, Principal
from pdp.model.request import Party, Question
from pdp.service.desk import APPROVE, POLICY, approvals, words
from pdp.service.packs import difference
from pdp.service.policy import ACTIVATE
from pdp.world import World, policy_after

TOUCHES: Final = "change."


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What the change would be: rows, cells, what it touches, and who could make it live with how many yes of others.

    `snapshots` are the policies before and after. `approvers` may say yes to it. `makers` maps each principal or group that may
    make it live to the approvals that they need.
    """

    snapshots: tuple[Snapshot, Snapshot]
    rows_added: int
    rows_removed: int
    language: bool
    cells: tuple[Cell, ...]
    touches: tuple[str, ...]
    makers: Mapping[str, int]
    approvers: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing would change."""
        return not (self.rows_added or self.rows_removed or self.language)

    @property
    def needed(self) -> int | None:
        """The fewest approvals with which somebody could make it live; None if nobody could."""
        return min(self.makers.values(), default=None)


def foresee(
    world: World, pack: Pack, files: Mapping[str, bytes], now_ms: int, *, author: Party | None = None
) -> Foreseen:
    """Return what making `pack` live would do to `world`.

    Args:
        world: whose policy is live.
        pack: what would be applied, compiled.
        files: the names of its files.
        now_ms: as of when.
        author: who would propose and activate it; None: anybody whom the policy lets, a member of a group by its name.

    Raises:
        FoldError: it makes no valid policy on top of what is live.
        PortcullisError: `not_found` before genesis.
    """
    live = world.policy
    if live is None:
        raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
    change = difference(live, pack, files.keys())
    before, after = live.snapshot, policy_after(live, change)
    language = words(live) != words(after)
    facts = Facts(before, after.snapshot, language, now_ms)
    plain = facts.attributes(())
    asking = _Asking(world=world, facts=facts, plain=plain, now_ms=now_ms)
    everybody = tuple(_people(world))
    makers = ((str(author.principal), author),) if author else everybody
    return Foreseen(
        snapshots=(before, after.snapshot),
        rows_added=len(change["added"]),
        rows_removed=len(change["removed"]),
        language=language,
        cells=tuple(diff(before, after.snapshot, now_ms)),
        touches=tuple(sorted(name.removeprefix(TOUCHES) for name, value in plain.items() if value is True)),
        makers={name: needed for name, who in makers if (needed := asking.needed(who)) is not None},
        approvers=tuple(name for name, who in everybody if who != author and asking.approves(who)),
    )


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks the live policy who may do what with the change; `plain` is what it touches, whoever made it."""

    world: World
    facts: Facts
    plain: Attributes
    now_ms: int

    def needed(self, who: Party) -> int | None:
        """Return how many approvals `who` would need as its author; None if they may not make it live."""
        if self._asked(ACTIVATE, who, self.plain) is None:
            return None  # what comparing for whom it is costs is spent on those alone who may
        return self._asked(ACTIVATE, who, self.facts.attributes((who,)))

    def approves(self, who: Party) -> bool:
        """Tell whether `who` may say yes to it, and their yes would count."""
        asked = self._asked(APPROVE, who, self.plain)
        return asked is not None and not self.facts.favours(who)

    def _asked(self, action: Action, who: Party, attributes: Attributes) -> int | None:
        question = Question(subject=who, action=action, resource=POLICY, attributes=attributes)
        decision = decide(self.world, question, self.now_ms)
        return approvals(decision.obligations) if decision.allowed else None


def _people(world: World) -> Iterator[tuple[str, Party]]:
    """Yield everybody whom the policy names, and somebody of each group and pattern that it names."""
    uses = uses_of((world.snapshot,), GRANTS, "sub") if world.snapshot else ()
    names = set[str]().union(*(each.names for each in uses))
    for name in subjects(names, everyone=False, uses=uses, where=place(GRANTS, "sub")):
        yield name.label, Party(principal=Principal.parse(name.member), groups=frozenset(name.memberships))
