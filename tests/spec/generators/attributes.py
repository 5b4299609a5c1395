"""ABAC: questions whose values have attributes, matchers and rules of rows that read them (CASBIN.md section 1).

Most questions are *complete*: every attribute is there, of the kind that is compared with it, so pycasbin answers and does
not raise. The others lack one, or have it of another kind; those only the reference can judge (D-21, D-24).
"""

from random import Random
from typing import Any

SUBJECT = (
    "r.sub.name == p.sub",
    'r.sub.name == p.sub || r.sub.name == "root"',
    "g(r.sub.name, p.sub)",
    "r.sub.name != p.sub && r.sub.age >= 18",
    "p.sub in r.sub.teams || r.sub.name == p.sub",
    "r.sub.boss.name == p.sub",
    'r.sub.name not in ["u1", "root"]',
)
OBJECT = (
    "r.obj.path == p.obj",
    "keyMatch(r.obj.path, p.obj)",
    "keyMatch2(r.obj.path, p.obj)",
    "r.obj.owner == r.sub.name && r.obj.path == p.obj",
    "r.obj.owner == r.sub.name || keyMatch3(r.obj.path, p.obj)",
)
ACTION = (
    "r.act == p.act",
    'r.act == p.act || p.act == "*"',
    "r.act in r.sub.acts",
    "r.sub.mfa && r.act == p.act",
    "r.sub.mfa == True || r.act == p.act",
)
RULES = (
    "r.sub.name == 'u1'",
    "r.sub.age > 18 && r.sub.age < 60",
    "r.sub.age >= 18 || r.sub.name == p.sub",
    "r.obj.owner == r.sub.name",
    "r.obj.path == '/a' || r.act == 'read'",
    "r.sub.age != 20 && r.sub.mfa",
    "r.sub.boss.name in ['u1', 'u2']",
    "!(r.sub.mfa) || r.act != 'write'",
    "g(r.sub.name, p.sub)",
    "'r1' in r.sub.teams",
    "r.sub.age <= r.obj.size",
)
_MISSING = object()
_NAMES = ("u1", "u2", "u3", "root", "nobody")


def subject(rng: Random, actions: tuple[str, ...]) -> Any:
    """Return a subject; one in six lacks something, or has it of another kind."""
    whole = {
        "name": rng.choice(_NAMES),
        "age": rng.choice((17, 18, 20, 59, 60)),
        "boss": {"name": rng.choice(_NAMES)},
        "teams": rng.sample(("r1", "r2", "u1"), rng.randint(0, 2)),
        "acts": rng.sample(actions, rng.randint(0, 2)),
        "mfa": rng.random() < 1 / 2,
    }
    return _bent(whole, rng) if rng.random() < 1 / 6 else whole


def thing(rng: Random, names: tuple[str, ...]) -> Any:
    """Return an object; one in ten lacks something."""
    whole = {"path": rng.choice(names), "owner": rng.choice(_NAMES), "size": rng.choice((18, 40))}
    return _bent(whole, rng) if rng.random() < 1 / 10 else whole


def _bent(whole: dict[str, Any], rng: Random) -> dict[str, Any]:
    name = rng.choice(sorted(whole))
    value = rng.choice((_MISSING, None, "18", 18, True, {}, ["u1"]))
    return {key: each for key, each in {**whole, name: value}.items() if each is not _MISSING}


def complete(subject: Any, thing: Any) -> bool:
    """Tell whether all attributes are there, of their kind."""
    match subject, thing:
        case {"name": str(), "boss": {"name": str()}, "teams": [*_], "acts": [*_]}, {"path": str(), "owner": str()}:
            return type(subject.get("age")) is type(thing.get("size")) is int and type(subject.get("mfa")) is bool
        case _:
            return False
