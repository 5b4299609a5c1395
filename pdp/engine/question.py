"""What is asked: one question to one context of a policy, before anything is known of the answer."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from pdp.engine.casbin_text import Model
from pdp.engine.patterns import is_canonical
from pdp.errors import Reason
from pdp.limits import MAX_JSON_DEPTH
from pdp.model.attributes import Attributes


class EngineRequest(NamedTuple):
    """One question to one context of the policy. A named tuple: two of them are made for most decisions.

    `context` is the suffix of the set that answers: "" is r/p/e/m, "2" is r2/p2/e2/m2. `values` are canonical names in the
    order of the request definition. A model that calls no function of ours may be asked with any text, and with values of
    exactly the built-in types: `str`, `int`, `float`, `bool`, `None`, and `list`, `tuple` and `dict` of these, where the
    entries of a `dict` are the attributes that a matcher reads (`r.sub.age`). `memberships` gives, for a field of the
    request, further names that stand for it in role graphs: the groups of a subject, the segment of an asset. A missing
    attribute is a condition error.
    """

    context: str
    values: tuple[Any, ...]
    memberships: Mapping[str, tuple[str, ...]]
    attributes: Attributes


def refusal(model: Model, role_names: AbstractSet[str], request: EngineRequest) -> Reason | None:
    """Return why a question to a model of plain names cannot be asked, or None (D-03, D-25, D-27, D-44).

    A question to a model of our own names is checked before it gets here (`decide.py`).
    """
    if not model.plain:
        return None
    context = model.contexts[request.context]
    if not all(value != "" if type(value) is str else _is_exact(value) for value in request.values):
        return Reason.BAD_REQUEST
    if not all(is_canonical(value) for value in (request.values[at] for at in context.paths) if type(value) is str):
        return Reason.BAD_NAME
    if context.subject and role_names:
        subject = request.values[context.request.index(context.subject)]
        if type(subject) is str and subject in role_names:
            return Reason.SUBJECT_IS_ROLE
    return None


def _is_exact(value: object, depth: int = 0) -> bool:
    """Tell whether a value is of exactly the built-in types: one with its own `__eq__` would equal anything (D-25)."""
    if value is None or type(value) in {str, int, float, bool}:
        return True
    if depth >= MAX_JSON_DEPTH:
        return False
    if type(value) is dict and isinstance(value, dict):
        return all(type(key) is str and _is_exact(item, depth + 1) for key, item in value.items())
    if type(value) in {list, tuple} and isinstance(value, list | tuple):
        return all(_is_exact(item, depth + 1) for item in value)
    return False
