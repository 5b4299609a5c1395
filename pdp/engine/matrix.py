"""The golden matrix of a pack: every role, resource class, action and environment, and whether the role alone allows it.

A policy change is a diff of this text that a reviewer sees. A resource class is a pattern that some grant names, or the
members of a collection; one made-up member stands for it. `✔` allows, `✘` denies, `?` depends on a condition.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.engine.functions import action_alternatives
from pdp.errors import Reason
from pdp.model.names import ENVIRONMENTS

_MARKS: Final = {Reason.GRANTED: "✔", Reason.CONDITION_ERROR: "?"}
_MEMBER: Final = "x"
_START_MS: Final = 0
"""When the matrix is taken: roles with a start or an end are not in it, since the shipped pack names none."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _ResourceClass:
    """What a grant can be about: a pattern, or a collection's members of one type."""

    type: str
    label: str
    member: str
    collections: tuple[str, ...] = ()


def matrix(snapshot: Snapshot) -> str:
    """Return the matrix as text, one line for each role, resource class and action."""
    classes = sorted(set(_classes(snapshot)))
    lines = [_line(("role", "resources", "action"), ENVIRONMENTS)]
    for role in sorted(_roles(snapshot)):
        for each in classes:
            for verb in sorted(snapshot.vocabulary.types[each.type].verbs):
                action = f"{each.type}.{verb}"
                marks = tuple(_mark(snapshot, role, action, each, environment) for environment in ENVIRONMENTS)
                lines.append(_line((role, each.label, action), marks))
    return "\n".join(lines) + "\n"


def _line(names: tuple[str, str, str], marks: tuple[str, ...]) -> str:
    role, label, action = names
    cells = "".join(f"{mark:<8}" for mark in marks)
    return f"{role:<24}{label:<32}{action:<28}{cells}".rstrip()


def _grants(snapshot: Snapshot) -> Iterator[Row]:
    return (row for row in snapshot.rows if row.section == "p")


def _roles(snapshot: Snapshot) -> set[str]:
    """Return every role: those that hold grants, and those that only include others."""
    holders = {row.fields[0] for row in _grants(snapshot)} | {
        row.fields[0] for row in snapshot.rows if row.section == "g"
    }
    return {name for name in holders | snapshot.role_names if name.startswith("role:")}


def _classes(snapshot: Snapshot) -> Iterator[_ResourceClass]:
    for kind in snapshot.vocabulary.types:
        yield _ResourceClass(type=kind, label=f"{kind}/**", member=f"{kind}/{_MEMBER}")
    for row in _grants(snapshot):
        action, target = row.fields[1], row.fields[2]
        if target.startswith("collection:"):
            for kind in {alternative.partition(".")[0] for alternative in action_alternatives(action)}:
                if kind in snapshot.vocabulary.types:
                    label = f"{kind} in {target}"
                    yield _ResourceClass(type=kind, label=label, member=f"{kind}/{_MEMBER}", collections=(target,))
        else:
            member = "/".join(_MEMBER if segment in {"*", "**"} else segment for segment in target.split("/"))
            yield _ResourceClass(type=target.partition("/")[0], label=target, member=member)


def _mark(snapshot: Snapshot, role: str, action: str, each: _ResourceClass, environment: str) -> str:
    request = EngineRequest(
        context="",
        values=(role, action, each.member, environment),
        memberships={"obj": each.collections},
        attributes={},
    )
    return _MARKS.get(evaluate(snapshot, request, _START_MS).reason, "✘")
