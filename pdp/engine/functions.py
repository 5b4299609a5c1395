"""The closed list of matching functions: total, pure, one meaning each. A policy cannot bring its own (CASBIN.md D-37).

Each takes the value of the request first and the text of the row second, and answers for any two texts. They are the
specification of the index: `index.py` must find what they accept, and a property test holds it to that.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.patterns import PATTERN_FUNCTIONS, covers
from pdp.errors import BadNameError
from pdp.model.names import Resource, ResourcePattern

Truth = bool | None
"""True, False, or None: it cannot be said."""
ANY: Final = "*"
"""In a row, the action or environment that stands for every one."""


def action_match(action: str, pattern: str) -> bool:
    """Tell whether `pattern` (`dataset.read`, `dataset.read|list`, `endpoint.*` or `*`) names `action`."""
    return not {action, f"{action.partition('.')[0]}.*", ANY}.isdisjoint(action_alternatives(pattern))


def action_alternatives(pattern: str) -> tuple[str, ...]:
    """Return the single actions, or wildcards, that `pattern` lists: `dataset.read|list` is two."""
    kind, dot, verbs = pattern.partition(".")
    return tuple(f"{kind}.{verb}" for verb in verbs.split("|")) if dot else (pattern,)


def resource_match(resource: str, pattern: str) -> bool:
    """Tell whether `pattern` names `resource`; a name outside the grammar is matched by nothing."""
    try:
        return ResourcePattern.parse(pattern).matches(Resource.parse(resource))
    except BadNameError:
        return False


def env_match(environment: str, wanted: str) -> bool:
    """Tell whether a row for `wanted` counts in `environment`."""
    return wanted in {ANY, environment}


def member_match(name: str, pattern: str) -> bool:
    """Tell whether the left side of a role row stands for `name`: the same text, or a pattern that names it.

    Resources are matched as in `resource_match`, workloads by whole SPIFFE segments below a `/**`. A role row's left side
    is a pattern only if it is written as one; `role:`, `group:` and plain principals are exact.
    """
    if name == pattern:
        return True
    if pattern.startswith("workload:"):
        return pattern.endswith("/**") and name.startswith(pattern.removesuffix("**")) and not name.endswith("/")
    return resource_match(name, pattern)


OWN_FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool]]] = MappingProxyType(
    {"actionMatch": action_match, "resourceMatch": resource_match, "envMatch": env_match}
)
"""Functions of our own names (POLICY.md section 1); a model that calls one has such names throughout."""

FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool | None]]] = MappingProxyType(
    {**OWN_FUNCTIONS, **{kind: partial(covers, kind) for kind in sorted(PATTERN_FUNCTIONS)}}
)
"""Functions of a value and a pattern that a matcher may call, beside `g*(…)`, `when(…)`, `eval(…)` and `timeMatch(…)`."""

_ORDERINGS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)


def kleene_and(truths: Iterable[Truth]) -> Truth:
    """Return False if any is False, else None if any is None, else True."""
    unknown = False
    for truth in truths:
        if truth is False:
            return False
        unknown = unknown or truth is None
    return None if unknown else True


def kleene_or(truths: Iterable[Truth]) -> Truth:
    """Return True if any is True, else None if any is None, else False."""
    unknown = False
    for truth in truths:
        if truth is True:
            return True
        unknown = unknown or truth is None
    return None if unknown else False


def kleene_not(truth: Truth) -> Truth:
    """Return the other truth; what cannot be said stays so."""
    return None if truth is None else not truth


def compare(sign: str, left: object, right: object) -> bool | None:
    """Compare two values of one kind (texts, numbers, truth values); None for absent ones and unlike kinds (D-21, D-24)."""
    kinds = {_kind(left), _kind(right)}
    if len(kinds) > 1 or None in kinds:
        return None
    if sign in {"==", "!="}:
        return (left == right) is (sign == "==")
    return None if kinds == {"truth"} else _ORDERINGS[sign](left, right)


def contains(items: object, value: object) -> bool | None:
    """Tell whether a list holds an equal value; None if it is no list, or nothing is equal and something cannot be compared."""
    if type(items) not in {list, tuple} or not isinstance(items, list | tuple):
        return None
    truths = [compare("==", value, item) for item in items]
    return True if True in truths else None if None in truths else False


def attribute(value: object, path: tuple[str, ...]) -> object:
    """Return what `path` leads to in nested mappings; None if it is absent."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _kind(value: object) -> str | None:
    kind = type(value)
    if kind is str:
        return "text"
    return "truth" if kind is bool else "number" if kind in {int, float} else None
