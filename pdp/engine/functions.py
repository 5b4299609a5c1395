"""The closed list of matching functions: total, pure, one meaning each. A policy cannot bring its own (CASBIN.md D-37).

Each takes the value of the request first and the text of the row second, and answers for any two texts. They are the
specification of the index: `index.py` must find what they accept, and a property test holds it to that.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pdp.errors import BadNameError
from pdp.model.names import Resource, ResourcePattern

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


FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool]]] = MappingProxyType(
    {"actionMatch": action_match, "resourceMatch": resource_match, "envMatch": env_match}
)
"""Functions that a matcher may call, beside `g*(…)` and `when(…)`."""
