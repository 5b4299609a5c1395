"""What a caller may learn from a deny: whether an asset exists is told only to those who would see it in a listing.

The record holds the full reason. To everybody else *unknown* and *forbidden* are one answer, byte for byte but for its id
(FAILURE.md N10; Vault CVE-2020-35177, CVE-2025-6011): otherwise a caller without any right could read the inventory by asking.
"""

from dataclasses import replace
from typing import Final

from pdp.decide import decide
from pdp.errors import Reason
from pdp.inventory import BUILTIN_ASSETS
from pdp.model.decision import Decision, deny
from pdp.model.names import Action, Resource
from pdp.model.request import Question
from pdp.world import World

_SEEING: Final = ("list", "read_metadata", "read")
"""Verbs whose holder sees an asset: it stands in a list, or its description or content can be had."""
_TELLING: Final = frozenset(
    {
        Reason.ASSET_UNREGISTERED,
        Reason.ASSET_RETIRED,
        Reason.NO_GRANT,
        Reason.DENIED_BY_RULE,
        Reason.SEGMENT_DENIED,
        Reason.CONDITION_ERROR,
        Reason.DELEGATION_DENIED,
        Reason.LOCKED,
    }
)
"""Reasons that differ with what the inventory holds. Those left out come before it is looked at, or behind a grant."""


def discreet(decision: Decision, *, known: bool) -> Decision:
    """Return `decision` as a caller may see it; `known`: the asset's existence is nothing new to it."""
    if known or not telling(decision):
        return decision
    return deny(Reason.NO_GRANT, world_seq=decision.world_seq)


def sees(world: World, question: Question, now_ms: int, *, clock_off: bool = False) -> bool:
    """Tell whether the subject of `question` sees the asset in question, and the model behind it, in `world`."""
    touched = [question.resource] if question.serves is None else [question.resource, question.serves]
    return all(_sees(world, question, resource, now_ms, clock_off=clock_off) for resource in touched)


def telling(decision: Decision) -> bool:
    """Tell whether a decision says something of the inventory."""
    return not decision.allowed and decision.reason in _TELLING


def _sees(world: World, question: Question, resource: Resource, now_ms: int, *, clock_off: bool) -> bool:
    if str(resource) in BUILTIN_ASSETS:
        return True  # `policy/main` and its like exist in every installation
    info = world.snapshot.vocabulary.types.get(resource.type) if world.snapshot else None
    looks = (
        replace(question, action=Action.parse(f"{resource.type}.{verb}"), resource=resource, serves=None, supports=None)
        for verb in _SEEING
        if info is not None and verb in info.verbs
    )
    return any(decide(world, look, now_ms, clock_off=clock_off).allowed for look in looks)
