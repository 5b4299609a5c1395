"""Lists from one context of a policy: who can, what can, which actions. Complete, in order, and never guessed.

A list is `possible` asked of every class of names that the policy tells apart (`classes.py`), so it says what `evaluate`
would say, by construction: the same index, the same role graphs, the same conditions, for any matcher. An entry is an
allow, or it is *conditional*: it depends on attributes that only a question brings, and names the conditions. Whether the
names fall into classes is the matcher's doing (`check_enumerable`); over names that are given every list is complete.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pdp.engine.classes import NameClass
from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest
from pdp.engine.possible import Open, Possible, possible
from pdp.model.listed import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of a list: a class of names, and what is possible for it."""

    name: NameClass
    possible: Possible


def search(
    snapshot: Snapshot, request: EngineRequest, field: str, names: Iterable[NameClass], *, open_: Open, now_ms: int
) -> Iterator[Found]:
    """Yield, in order, each of `names` that `request` could be allowed for if it stood in `field`.

    Args:
        snapshot: the compiled policy.
        request: the question; what stands in `field` is replaced.
        field: the field of the request definition that is searched for: `sub`, `act`, `obj`.
        names: the candidates: classes that the policy tells apart, or names of an inventory.
        open_: tells which attributes only the question will bring.
        now_ms: wall-clock time, milliseconds since the epoch.
    """
    compiled = snapshot.contexts.get(request.context)
    if compiled is None or field not in compiled.context.request:
        return
    position = compiled.context.request.index(field)
    for name in sorted(names):
        values = (*request.values[:position], name.member, *request.values[position + 1 :])
        memberships = {**request.memberships, field: name.memberships} if name.memberships else request.memberships
        found = possible(snapshot, request._replace(values=values, memberships=memberships), open_, now_ms)
        if found.access is not Access.DENY:
            yield Found(name=name, possible=found)
