"""Questions that follow the rows: each is built to meet one of them, and then perhaps bent so that it just misses."""

from collections.abc import Sequence
from random import Random

from pdp.engine.casbin_text import Row
from pdp.engine.evaluate import EngineRequest

SEGMENTS = ("a", "b")
SUBJECTS = ("user:u1", "user:u2@x", "agent:a1", "workload:spiffe://d/a/b", "user:nobody")
ACTIONS = ("dataset.read", "dataset.list", "model.promote", "data.read")
OBJECTS = ("dataset/a", "dataset/a/b", "model/a@1", "model/b/a@2", "data/b")
ENVIRONMENTS = ("dev", "prod", "staging")


def ask_about(rows: Sequence[Row], rng: Random) -> EngineRequest:
    """Return a question that meets some row of `rows`, more often than not."""
    policies = [row for row in rows if row.section in {"p", "p2"}]
    return _about(rng.choice(policies), rows, rng)


def _about(row: Row, rows: Sequence[Row], rng: Random) -> EngineRequest:
    attributes = _attributes(rng)
    who, what, where = row.fields[:3]
    action = _bent(_action(what, rng), ACTIONS, rng)
    if row.section == "p":
        groups = [name for name in (_below(who, rows, "g", rng) for _ in range(2)) if name.startswith("group:")]
        subject = _name(_below(who, rows, "g", rng), rng)
        environment = row.fields[3] if row.fields[3] != "*" else rng.choice(ENVIRONMENTS)
        values = (
            _bent(subject, SUBJECTS, rng),
            action,
            _bent(_name(_below(where, rows, "g2", rng), rng), OBJECTS, rng),
            _bent(environment, ENVIRONMENTS, rng),
        )
        return EngineRequest(context="", values=values, memberships={"sub": tuple(groups)}, attributes=attributes)
    source, target = _below(who, rows, "g3", rng), _below(where, rows, "g3", rng)
    memberships = {
        "src": (source,) if source.startswith("segment:") else (),
        "dst": (target,) if target.startswith("segment:") else (),
    }
    values = (_bent(_name(source, rng), SUBJECTS, rng), action, _bent(_name(target, rng), OBJECTS, rng))
    return EngineRequest(context="2", values=values, memberships=memberships, attributes=attributes)


def _bent(value: str, others: Sequence[str], rng: Random) -> str:
    """Return another value now and then, and always where `value` is none that a question may have."""
    if rng.random() < 1 / 8 or value.startswith(("role:", "segment:", "collection:", "group:")):
        return rng.choice(others)
    return value


def _below(name: str, rows: Sequence[Row], section: str, rng: Random) -> str:
    """Walk role links downwards, a random number of steps, from a role to a name that may hold it."""
    for _ in range(rng.randint(1, 4)):
        below = [row.fields[0] for row in rows if row.section == section and row.fields[1] == name]
        if not below:
            return name
        name = rng.choice(below)
    return name


def _action(pattern: str, rng: Random) -> str:
    kind, _, verbs = pattern.partition(".")
    verb = rng.choice(verbs.split("|")) if verbs else "*"
    return f"{kind}.{verb}" if verb != "*" else f"{kind if kind != '*' else 'dataset'}.{rng.choice(('read', 'list'))}"


def _name(pattern: str, rng: Random) -> str:
    """Return a name that `pattern` covers: wildcards filled in, a version added or left as it is."""
    base, at, version = pattern.partition("@")
    segments: list[str] = []
    for segment in base.split("/"):
        if segment == "**":
            segments.extend(rng.choice(SEGMENTS) for _ in range(rng.randint(1, 3)))
        else:
            segments.append(rng.choice(SEGMENTS) if segment == "*" else segment)
    name = "/".join(segments)
    if at:
        return f"{name}@{version}"
    return f"{name}@{rng.choice('12')}" if ":" not in segments[0] and rng.random() < 1 / 3 else name


def _attributes(rng: Random) -> dict[str, bool | int | str | tuple[str, ...]]:
    choices: dict[str, tuple[bool | int | str | tuple[str, ...], ...]] = {
        "subject.id": ("user:u1", "user:u2@x"),
        "resource.approvals": ((), ("user:u1",), ("user:u1", "user:u2")),
        "resource.signed": (True, True, False),
        "resource.since": ("2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        "request.purpose": ("x", "y"),
        "signal.level": (0, 1, "one"),
    }
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 3 / 4}
