"""The order of rows, where the first that matches decides: by an integer column, or by the place of the subject among roles.

Under `priority` the lowest number comes first, and rows of one number in the order of the file; under `subjectPriority`
subjects are peeled off the role graph from its leaves, and the round in which one goes is its level (CASBIN.md section 1).
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from pdp.engine.casbin_text import Context, EffectRule, Model, Row
from pdp.engine.findings import Finding
from pdp.limits import MAX_PRIORITY

Levels = Mapping[tuple[str, str], int]
"""The level of each subject, by domain ("" where there are none) and name."""


def priority_of(text: str) -> int | None:
    """Return the integer that `text` writes, or None if it is none or out of range (D-07)."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,9})", text):
        return None
    number = int(text)
    return number if abs(number) <= MAX_PRIORITY else None


def subject_levels(rows: Iterable[Row], model: Model, context: Context) -> Levels:
    """Return the level of every name in the role section that ranks subjects; a name outside it has level 0."""
    places = model.roles[context.hierarchy].places if context.hierarchy else 2
    below: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in rows:
        domain = row.fields[2] if places > 2 else ""  # noqa: PLR2004 - name and role come first
        below.setdefault((domain, row.fields[1]), set()).add((domain, row.fields[0]))
        below.setdefault((domain, row.fields[0]), set())
    levels: dict[tuple[str, str], int] = {}
    waiting = dict(below)
    while waiting:
        ready = [name for name, children in waiting.items() if children <= levels.keys()]
        if not ready:
            # A circle, which the role section reports (PC402).
            return levels
        for name in ready:
            levels[name] = 1 + max((levels[child] for child in waiting[name]), default=-1)
            del waiting[name]
    return levels


def check_order(rules: Iterable[tuple[Row, bool, int]], context: Context, levels: Levels) -> Iterator[Finding]:
    """Yield a warning where the order of the file decides between an allow and a deny, or a subject has no level."""
    if context.effect is EffectRule.PRIORITY and "priority" in context.policy:
        first: dict[int, tuple[Row, bool]] = {}
        for row, allow, priority in rules:
            other, other_allow = first.setdefault(priority, (row, allow))
            if allow != other_allow:
                message = f"the same priority as {other.id}, and another effect: the order of the file decides"
                yield row.problem("PC143", message, context.policy.index("priority"))
    elif context.effect is EffectRule.SUBJECT_PRIORITY:
        for row, _, _ in rules:
            names = dict(zip(context.policy, row.fields, strict=True))
            if (names.get("dom", ""), names["sub"]) not in levels:
                message = f"`{names['sub']}` is outside the role graph: it ranks first, with its leaves"
                yield row.problem("PC144", message, context.policy.index("sub"))
