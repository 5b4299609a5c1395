"""What the policy has said before, for the next question that is the same in all that one context reads.

A cache of `evaluate`, and equal to it: a property test holds the two together.

- Key: the context; the texts and groups of which its request is made; and the value, with its type, of every attribute that
  a condition of the context reads and that follows neither from those nor from the asset. A tuple of these is as unambiguous
  as canonical bytes would be, and made in a fifth of the time.
- Invalidation: it lies in the snapshot, so that a new policy starts with nothing. What was said about an asset counts for
  that very value in the inventory: a changed asset is another one. Time invalidates nothing, for what it could change is
  not kept: where a condition read the clock, or one of the names stands for something by a link that starts or ends. (That
  the outcome itself would stand is not enough: the role path may lead over such a link.)
- Bound: entries by number, and each by the text that callers may put into it; beyond either an outcome is made anew.
- Beside an outcome lies the last decision that was made of it (`decide`), with all that it was made of.
- Bypass: contexts whose rules the index alone does not find (`direct`), for what their matchers read is not listed; and
  whoever calls `evaluate`.
"""

from collections.abc import Callable
from typing import Final

from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.engine.functions import ANY
from pdp.engine.memory import Kept, Key
from pdp.engine.plan import ROLE
from pdp.limits import RECALL_TEXT_CHARS
from pdp.model.attributes import Attributes, Value

FROM_ASSET: Final = "resource."
"""How the names of attributes begin that follow from the asset and its name; nobody else may say one."""
BROUGHT: Final = ("request.", "change.")
"""How the names of attributes begin that a question brings with it, and nothing else: what an enforcement point asserts, and
what a change of the policy touches (our own door)."""


def recall(
    snapshot: Snapshot,
    context: str,
    now_ms: int,
    *,
    said: Key,
    given: frozenset[str],
    asset: object,
    brought: Attributes,
    attributes: Attributes,
    request: Callable[[], EngineRequest],
) -> Kept:
    """Return what `evaluate` says to `request` in `context`, without asking it if that is known; it may be kept or new.

    Args:
        snapshot: the policy.
        context: the numbered set that is asked.
        now_ms: wall-clock time, milliseconds since the epoch.
        said: the texts and groups of the request; together with `asset`, all that it is made of.
        given: the names of attributes that follow from `said`.
        asset: what the inventory holds of the resource.
        brought: the attributes that the question brings.
        attributes: all that conditions may read.
        request: makes the request.
    """
    compiled = snapshot.contexts.get(context)
    if compiled is None or not compiled.direct:
        return Kept(evaluate(snapshot, request(), now_ms), asset)
    memory = snapshot.memory
    named = memory.derived.get((context, given))
    if named is None:
        named = memory.derived[context, given] = _more(compiled, given)
    asserted, others = named
    key = (
        context,
        said,
        _values(asserted, brought) if brought and asserted else (),
        _values(others, attributes) if others else (),
    )
    kept = memory.find(key)
    if kept is not None and kept.asset is asset:
        return kept
    asked = request()
    outcome = evaluate(snapshot, asked, now_ms)
    kept = Kept(outcome, asset)
    if _short(key) and not outcome.reads_now and _timeless(snapshot, compiled, asked, now_ms):
        memory.keep(key, kept)
    return kept


def _timeless(snapshot: Snapshot, compiled: CompiledContext, request: EngineRequest, now_ms: int) -> bool:
    """Tell whether no link that starts or ends leads on from anything that the request's names stand for."""
    for term in compiled.branches[0].terms:
        if term.kind != ROLE or not snapshot.graphs[term.section].definition.temporal:
            continue
        further = request.memberships.get(compiled.context.request[term.field], ())
        domain = ANY if term.domain is None else request.values[term.domain]
        if snapshot.graphs[term.section].windowed((request.values[term.field], *further), domain, now_ms):
            return False
    return True


def _values(names: tuple[str, ...], attributes: Attributes) -> tuple[tuple[type, Value | None], ...]:
    # `-0.0 == 0.0`, and a condition may tell them apart by dividing.
    found = map(attributes.get, names)
    return tuple([(type(value), value.hex() if type(value) is float else value) for value in found])


def _short(key: Key) -> bool:
    """Tell whether little enough text stands in the attributes of a key; most have none."""
    attributes = key[2:]
    return not any(attributes) or _chars(attributes) <= RECALL_TEXT_CHARS


def _chars(part: object) -> int:
    """Return how much text a part of a key holds."""
    if isinstance(part, str):
        return len(part)
    return sum(map(_chars, part)) if isinstance(part, tuple) else 0


def _more(compiled: CompiledContext, given: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the attributes that conditions read and that follow neither from `given` nor from the asset: brought, others."""
    conditions = {id(rule.condition): rule.condition for rule in compiled.rules if rule.condition is not None}
    read = {name for condition in conditions.values() for name, _ in condition.reads}
    names = sorted(name for name in read - given if not name.startswith(FROM_ASSET))
    brought = tuple(name for name in names if name.startswith(BROUGHT))
    return brought, tuple(name for name in names if not name.startswith(BROUGHT))
