"""Models of plain names with rows and questions: every construct of the grammar meets every other, over small pools.

A model is drawn from parts (conjuncts, effects, role sections); rows and values come from the same few names, their
prefixes and extensions, so that things match, just miss, or cannot be compared. A world asks with names, or with
attributes (`attributes.py`); `mixed` ones ask with both, which pycasbin answers by raising (CASBIN.md D-24).
"""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from hypothesis import strategies as st

from pdp.engine.casbin_text import Model, Row, parse_model, parse_rows, print_row
from pdp.engine.question import EngineRequest
from pdp.model.vocabulary import Vocabulary
from tests.spec.generators import attributes

NO_WORDS = Vocabulary(types={}, attributes={})
ALLOW = "some(where (p.eft == allow))"
EFFECTS = (
    ALLOW,
    f"{ALLOW} && !some(where (p.eft == deny))",
    "!some(where (p.eft == deny))",
    "priority(p.eft) || deny",
    "subjectPriority(p.eft) || deny",
)
SUBJECT = (
    "g(r.sub, p.sub)",
    "r.sub == p.sub",
    'g(r.sub, p.sub) || p.sub == "*"',
    'r.sub == p.sub || r.sub == "root"',
    "r.sub != p.sub",
    '!(r.sub in ["u1", "u2"]) || r.sub == p.sub',
    'g(r.sub, "r3") && r.sub == p.sub',
    "p.sub == r.sub",
)
OBJECT = (
    "r.obj == p.obj",
    "keyMatch(r.obj, p.obj)",
    "keyMatch2(r.obj, p.obj)",
    "keyMatch3(r.obj, p.obj)",
    "keyMatch4(r.obj, p.obj)",
    "globMatch(r.obj, p.obj)",
    "g2(r.obj, p.obj) || r.obj == p.obj",
    "keyMatch(r.obj, p.obj) || g2(r.obj, p.obj)",
    "regexMatch(r.obj, p.obj)",
    "r.obj == p.obj && keyMatch2(r.obj, p.obj)",
)
ACTION = (
    "r.act == p.act",
    'r.act == p.act || p.act == "*"',
    "regexMatch(r.act, p.act)",
    'r.act in ("read", "write") && r.act == p.act',
    'p.act not in ["write"] || r.act == p.act',
    "r.act >= p.act",
)
PATTERNS = {
    "keyMatch": ("/a", "/a/*", "/a/b*", "*"),
    "keyMatch2": ("/a", "/a/:x", "/:x/b", "/a/*", "/:x/:y"),
    "keyMatch3": ("/a", "/a/{x}", "/{x}/b", "/a/b{x}", "/{x}/{y}"),
    "keyMatch4": ("/a", "/{x}/{x}", "/a/{x}", "/{x}/{y}"),
    "globMatch": ("/a", "/a/*", "/a/**", "/*/b", "/a/[ab]"),
    "regexMatch": ("^/a$", "^/a/.*", "^/(a|b)/b$", ".*"),
    "==": ("/a", "/a/b", "/b/b", "set"),
}
NAMES = ("/a", "/a/a", "/a/b", "/b/b", "/a/bb", "/a/b/b", "/b")
SUBJECTS = ("u1", "u2", "u3", "root")
ROLES = ("r1", "r2", "r3", "r4")
ACTIONS = ("read", "write", "list")
REGEX_ACTIONS = ("^read$", "^(read|write)$", ".*")
RULES = (
    "r.sub == p.sub",
    "r.sub == 'u1' && r.act != 'write'",
    "r.obj == '/a' || r.act == 'read'",
    "g(r.sub, p.sub)",
    "r.act in ('read', 'list')",
    "!(r.sub == 'u2') && keyMatch(r.obj, '/a/*')",
    "keyMatch2(r.obj, '/a/:x') || r.sub == 'root'",
)


FURTHER_SUBJECT = (
    *SUBJECT,
    "keyMatch(r.sub, p.sub)",
    "regexMatch(r.sub, p.sub)",
    "ipMatch(r.sub, p.sub)",
    "r.sub == r.obj || r.sub == p.sub",
    "g(r.sub, r.obj) || g(r.sub, p.sub)",
    'r.sub < "u2" || g(r.sub, p.sub)',
    'r.sub != r.obj && keyMatch(r.sub, "u*")',
    "r.sub == 7 || g(r.sub, p.sub)",
)
FURTHER_OBJECT = (
    *OBJECT,
    "keyMatch5(r.obj, p.obj)",
    "(keyMatch(r.obj, p.obj) || globMatch(r.obj, p.obj))",
    "r.obj <= p.obj",
    '!regexMatch(r.obj, "^/a/(a|b.*)$") && r.obj != p.obj',
)
FURTHER_ACTION = (*ACTION, "keyMatch(r.act, p.act)", "r.act < p.act", "timeMatch(p.start, p.end) && r.act == p.act")
FURTHER_DOMAIN = ("r.dom == p.dom", "keyMatch(r.dom, p.dom)", "r.dom >= p.dom")
ROLE_PATTERNS = {"g": ("keyMatch", ("u*", "*", "u1", "r1")), "g2": ("keyMatch2", ("/a/:x", "/:x/b", "/a/a"))}
FURTHER_PATTERNS = {
    "keyMatch(r.sub": ("u*", "u1", "root", "n*", "*"),
    "regexMatch(r.sub": ("^u[12]$", "^(root|u1)$", "^u.*", ".*o.*"),
    "ipMatch(r.sub": ("10.0.0.0/8", "10.1.0.0/16", "::ffff:10.0.0.1", "10.0.0.1", "::/0"),
    "keyMatch(r.act": ("read", "r*", "*"),
    "keyMatch(r.dom": ("d*", "d1", "*"),
    "keyMatch5(": ("/a", "/{x}/b", "/a/{y}"),
    "|| globMatch(": ("/a", "/a/*", "/a/b"),
}
TIMES = ("_", "1970-01-01 00:00:00", "1970-01-02 00:00:00", "1970-01-03 00:00:00")


class Kind(StrEnum):
    """What a world asks with."""

    NAMES = "names"
    ATTRIBUTES = "attributes"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CasbinWorld:
    """A model's text, its rows and eight questions; `seed` writes the same world again."""

    seed: int
    kind: Kind
    text: str
    model: Model
    rows: tuple[Row, ...]
    questions: tuple[EngineRequest, ...]
    now_ms: int

    @property
    def csv(self) -> str:
        return "\n".join(print_row(row) for row in self.rows) + "\n"

    def named(self, row: Row) -> dict[str, str]:
        """Return the fields of a policy row by their names; none for any other row."""
        return dict(zip(self.model.contexts[""].policy, row.fields, strict=True)) if row.section == "p" else {}

    def rng(self, salt: str) -> Random:
        """Return a source of further choices about this world: the same for the same seed and salt."""
        return Random(f"{self.seed}:{salt}")  # noqa: S311 - worlds, not keys

    def complete(self, question: EngineRequest) -> bool:
        """Tell whether a question has a value of the right kind for every comparison of the model: pycasbin cannot raise."""
        values = dict(zip(self.model.contexts[""].request, question.values, strict=True))
        names = [name for name in values if self.kind is Kind.NAMES or name not in {"sub", "obj"}]
        if self.kind is Kind.MIXED or not all(type(values[name]) is str and values[name] for name in names):
            return False
        return self.kind is Kind.NAMES or attributes.complete(values["sub"], values["obj"])


def casbin_worlds() -> st.SearchStrategy[CasbinWorld]:
    return st.integers(0, 2**48).map(world)


def further_worlds() -> st.SearchStrategy[CasbinWorld]:
    """Worlds of names with what tells names apart in more ways: patterns of each field, of roles and of domains, order, time."""
    return st.integers(0, 2**48).map(further_world)


def further_world(seed: int) -> CasbinWorld:
    """Return the world that a seed writes with further constructs: always the same."""
    return world(seed, further=True)


def world(seed: int, *, further: bool = False) -> CasbinWorld:
    """Return the world that a seed writes: always the same."""
    rng = Random(seed)  # noqa: S311 - worlds, not keys
    kind = Kind.NAMES if further else rng.choices(tuple(Kind), (6, 3, 1))[0]
    parts = _parts(kind, rng, further=further)
    effect = rng.choice(EFFECTS)
    columns = [name for name in ("sub", "dom", "obj", "act", "rule") if name in parts]
    if effect.startswith("priority") and rng.random() < 2 / 3:
        columns.insert(rng.randrange(len(columns) + 1), "priority")
    if "sub" not in columns:
        columns.insert(0, "sub")
    columns += ["start", "end"] if "timeMatch" in parts.get("act", "") else []
    columns.append("eft")
    request = ["sub", *(["dom"] if "dom" in parts else []), "obj", "act"]
    matcher = _joined(kind, list(parts.values()), rng)
    timed = ", (_, _)" if further and rng.random() < 1 / 3 else ""
    matching = tuple(name for name in ("g", "g2", "g_domain") if further and rng.random() < 1 / 4)
    text = (
        f"[request_definition]\nr = {', '.join(request)}\n[policy_definition]\np = {', '.join(columns)}\n"
        f"[role_definition]\ng = {'_, _, _' if 'dom' in parts else '_, _'}{timed}\ng2 = _, _\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n{_matching(matching, parts)}"
    )
    model, found = parse_model(text, file="model.conf", served=False)
    assert model is not None, (text, [str(item) for item in found])
    lines = [*_policies(kind, columns, parts, rng), *_links("dom" in parts, rng, matching, timed=bool(timed))]
    rows, found = parse_rows("\n".join(lines), file="policy.csv", model=model)
    assert not found, (text, lines, [str(item) for item in found])
    questions = tuple(_question(kind, request, rng) for _ in range(8))
    return CasbinWorld(seed=seed, kind=kind, text=text, model=model, rows=rows, questions=questions, now_ms=0)


def _matching(sections: tuple[str, ...], parts: dict[str, str]) -> str:
    """Return the section of the model that names the functions of role patterns."""
    wanted = {name: "keyMatch" if name == "g_domain" else ROLE_PATTERNS[name][0] for name in sections}
    kept = {name: function for name, function in wanted.items() if name != "g_domain" or "dom" in parts}
    lines = "".join(f"{name} = {function}\n" for name, function in kept.items())
    return f"[role_matching]\n{lines}" if kept else ""


def _parts(kind: Kind, rng: Random, *, further: bool = False) -> dict[str, str]:
    pools = (attributes.SUBJECT, attributes.OBJECT, attributes.ACTION)
    if kind is Kind.NAMES:
        pools = (SUBJECT, OBJECT, ACTION)
    elif kind is Kind.MIXED:
        pools = ((*SUBJECT, *attributes.SUBJECT), (*OBJECT, *attributes.OBJECT), (*ACTION, *attributes.ACTION))
    if further:
        pools = (FURTHER_SUBJECT, FURTHER_OBJECT, FURTHER_ACTION)
    parts = dict(zip(("sub", "obj", "act"), map(rng.choice, pools), strict=True))
    if rng.random() < 1 / 3:
        parts["rule"] = "eval(p.rule)"
    if rng.random() < 1 / 4 and kind is Kind.NAMES:
        parts["sub"], parts["dom"] = (
            "g(r.sub, p.sub, r.dom)",
            rng.choice(FURTHER_DOMAIN) if further else "r.dom == p.dom",
        )
    elif rng.random() < 1 / 5:
        del parts[rng.choice(sorted(parts))]
    if "dom" in parts:
        parts = {name: text for name, text in parts.items() if "g(r.sub, p.sub)" not in text and name != "rule"}
    return parts


def _joined(kind: Kind, conjuncts: list[str], rng: Random) -> str:
    rng.shuffle(conjuncts)
    wrapped = [f"({text})" if "||" in text or " or " in text else text for text in conjuncts]
    matcher = " && ".join(wrapped)
    if rng.random() < 1 / 6:
        root = 'r.sub.name == "root"' if kind is Kind.ATTRIBUTES else 'r.sub == "root"'
        return f"{root} || {matcher}"
    return f"({matcher}) || {' && '.join(wrapped[:2])}" if rng.random() < 1 / 8 else matcher


def _policies(kind: Kind, columns: list[str], parts: dict[str, str], rng: Random) -> list[str]:
    kinds = [kind for kind in PATTERNS if f"{kind}(" in parts.get("obj", "")] or ["=="]
    rules = {Kind.NAMES: RULES, Kind.ATTRIBUTES: attributes.RULES, Kind.MIXED: (*RULES, *attributes.RULES)}
    pools: dict[str, tuple[str, ...]] = {
        "sub": (*SUBJECTS, *ROLES, *ROLES, "*") if '"*"' in parts.get("sub", "") else (*SUBJECTS, *ROLES, *ROLES),
        "dom": ("d1", "d2"),
        "obj": (*PATTERNS[kinds[0]], *(("set",) if "g2" in parts.get("obj", "") else ())),
        "act": REGEX_ACTIONS if "regexMatch" in parts.get("act", "") else (*ACTIONS, "*"),
        "rule": rules[kind],
        "priority": ("1", "2", "10", "0"),
        "eft": ("allow", "allow", "deny"),
    }
    if "&& keyMatch2" in parts.get("obj", ""):
        pools["obj"] = ("/a", "/a/b")
    for name, part in parts.items():
        pools[name] = next((pool for call, pool in FURTHER_PATTERNS.items() if call in part), pools[name])
    pools["start"], pools["end"] = TIMES, TIMES
    lines = []
    for _ in range(rng.randint(1, 8)):
        fields = [rng.choice(pools[name]) for name in columns]
        lines.append(", ".join(["p", *(f'"{field.replace(chr(34), chr(34) * 2)}"' for field in fields)]))
    return lines


def _links(domains: bool, rng: Random, matching: tuple[str, ...], *, timed: bool) -> list[str]:  # noqa: FBT001 - whether there are any
    lines = []
    for _ in range(rng.randint(0, 6)):
        low = rng.randrange(len(ROLES))
        name = rng.choice(SUBJECTS[:3]) if rng.random() < 1 / 2 or low == 0 else ROLES[rng.randrange(low)]
        if "g" in matching and rng.random() < 1 / 2:
            name = rng.choice(ROLE_PATTERNS["g"][1][:3] if low == 0 else ROLE_PATTERNS["g"][1])
        domain = f", {rng.choice(('d*', 'd1') if 'g_domain' in matching else ('d1', 'd2'))}" if domains else ""
        window = f", {_window(rng)}" if timed and rng.random() < 1 / 2 else ""
        lines.append(f"g, {name}, {ROLES[low]}{domain}{window}")
    members = ROLE_PATTERNS["g2"][1] if "g2" in matching else NAMES
    lines += [f"g2, {rng.choice(members)}, set" for _ in range(rng.randint(0, 2))]
    return list(dict.fromkeys(lines))


def _window(rng: Random) -> str:
    bounds = sorted(rng.sample(TIMES[1:], 2))
    return ", ".join(bound if rng.random() < 2 / 3 else "_" for bound in bounds)


def _question(kind: Kind, request: list[str], rng: Random) -> EngineRequest:
    bare = kind is Kind.NAMES or (kind is Kind.MIXED and rng.random() < 1 / 2)
    pools: dict[str, Any] = {
        "sub": (rng.choice((*SUBJECTS, "nobody")) if bare else attributes.subject(rng, ACTIONS),),
        "dom": ("d1", "d2", "d3"),
        "obj": NAMES if bare else (attributes.thing(rng, NAMES),),
        "act": (*ACTIONS, "reads"),
    }
    values = tuple(rng.choice(pools[name]) for name in request)
    if rng.random() < 1 / 30:
        at = rng.randrange(len(values))
        values = (*values[:at], rng.choice(("", 7, None)), *values[at + 1 :])
    return EngineRequest(context="", values=values, memberships={}, attributes={})
