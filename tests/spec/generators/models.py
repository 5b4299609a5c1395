"""Models of plain names with rows and questions: every construct of the grammar meets every other, over small pools.

A model is drawn from parts (conjuncts, effects, role sections); rows and values come from the same few names, their
prefixes and extensions, so that things match, just miss, or cannot be compared.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st

from pdp.engine.casbin_text import Model, Row, parse_model, parse_rows, print_row
from pdp.engine.question import EngineRequest
from pdp.model.vocabulary import Vocabulary

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
    "r.sub.name == p.sub",
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
    'r.sub.name == "u1"',
    "r.sub.age > 18 && r.sub.age < 60",
    'r.obj == "/a" || r.act == "read"',
    "g(r.sub, p.sub)",
    "r.sub.age >= 18 || r.sub.name == p.sub",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CasbinWorld:
    """A model's text, its rows and eight questions; `safe` if pycasbin means the same by all of it."""

    text: str
    model: Model
    rows: tuple[Row, ...]
    questions: tuple[EngineRequest, ...]
    now_ms: int
    safe: bool

    @property
    def csv(self) -> str:
        return "\n".join(print_row(row) for row in self.rows) + "\n"


@st.composite
def casbin_worlds(draw: st.DrawFn) -> CasbinWorld:
    rng = Random(draw(st.integers(0, 2**48)))  # noqa: S311 - worlds, not keys
    return world(rng)


def world(rng: Random) -> CasbinWorld:
    """Return the world that a random source writes; the same source writes the same world."""
    parts = _parts(rng)
    effect = rng.choice(EFFECTS)
    columns = [name for name in ("sub", "dom", "obj", "act", "rule") if name in parts]
    if effect.startswith("priority") and rng.random() < 2 / 3:
        columns.insert(rng.randrange(len(columns) + 1), "priority")
    if "sub" not in columns:
        columns.insert(0, "sub")
    columns = [*(name for name in columns), "eft"]
    request = ["sub", *(["dom"] if "dom" in parts else []), "obj", "act"]
    matcher = _joined(list(parts.values()), rng)
    text = (
        f"[request_definition]\nr = {', '.join(request)}\n[policy_definition]\np = {', '.join(columns)}\n"
        f"[role_definition]\ng = {'_, _, _' if 'dom' in parts else '_, _'}\ng2 = _, _\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )
    model, found = parse_model(text, file="model.conf", served=False)
    assert model is not None, (text, [str(item) for item in found])
    lines = [*_policies(columns, parts, rng), *_links("dom" in parts, rng)]
    rows, found = parse_rows("\n".join(lines), file="policy.csv", model=model)
    assert not found, (text, lines, [str(item) for item in found])
    questions = tuple(_question(request, parts, rng) for _ in range(8))
    return CasbinWorld(text=text, model=model, rows=rows, questions=questions, now_ms=0, safe=".name" not in text)


def _parts(rng: Random) -> dict[str, str]:
    parts = {"sub": rng.choice(SUBJECT), "obj": rng.choice(OBJECT), "act": rng.choice(ACTION)}
    if rng.random() < 1 / 4:
        parts["rule"] = "eval(p.rule)"
    if rng.random() < 1 / 4:
        parts["sub"], parts["dom"] = "g(r.sub, p.sub, r.dom)", "r.dom == p.dom"
    elif rng.random() < 1 / 5:
        del parts[rng.choice(sorted(parts))]
    if "dom" in parts:
        parts = {name: text for name, text in parts.items() if "g(r.sub, p.sub)" not in text and name != "rule"}
    return parts


def _joined(conjuncts: list[str], rng: Random) -> str:
    rng.shuffle(conjuncts)
    wrapped = [f"({text})" if "||" in text or " or " in text else text for text in conjuncts]
    matcher = " && ".join(wrapped)
    if rng.random() < 1 / 6:
        return f'r.sub == "root" || {matcher}'
    return f"({matcher}) || {' && '.join(wrapped[:2])}" if rng.random() < 1 / 8 else matcher


def _policies(columns: list[str], parts: dict[str, str], rng: Random) -> list[str]:
    kinds = [kind for kind in PATTERNS if f"{kind}(" in parts.get("obj", "")] or ["=="]
    pools: dict[str, tuple[str, ...]] = {
        "sub": (*SUBJECTS, *ROLES, *ROLES, "*") if '"*"' in parts.get("sub", "") else (*SUBJECTS, *ROLES, *ROLES),
        "dom": ("d1", "d2"),
        "obj": (*PATTERNS[kinds[0]], *(("set",) if "g2" in parts.get("obj", "") else ())),
        "act": REGEX_ACTIONS if "regexMatch" in parts.get("act", "") else (*ACTIONS, "*"),
        "rule": RULES,
        "priority": ("1", "2", "10", "0"),
        "eft": ("allow", "allow", "deny"),
    }
    if "&& keyMatch2" in parts.get("obj", ""):
        pools["obj"] = ("/a", "/a/b")
    lines = []
    for _ in range(rng.randint(1, 8)):
        fields = [rng.choice(pools[name]) for name in columns]
        lines.append(", ".join(["p", *(f'"{field.replace(chr(34), chr(34) * 2)}"' for field in fields)]))
    return lines


def _links(domains: bool, rng: Random) -> list[str]:  # noqa: FBT001 - whether there are any
    lines = []
    for _ in range(rng.randint(0, 6)):
        low = rng.randrange(len(ROLES))
        name = rng.choice(SUBJECTS[:3]) if rng.random() < 1 / 2 or low == 0 else ROLES[rng.randrange(low)]
        lines.append(f"g, {name}, {ROLES[low]}" + (f", {rng.choice(('d1', 'd2'))}" if domains else ""))
    lines += [f"g2, {rng.choice(NAMES)}, set" for _ in range(rng.randint(0, 2))]
    return list(dict.fromkeys(lines))


def _question(request: list[str], parts: dict[str, str], rng: Random) -> EngineRequest:
    subject: Any = rng.choice((*SUBJECTS, "nobody"))
    if ".name" in parts.get("sub", "") or ("rule" in parts and rng.random() < 1 / 2):
        subject = rng.choice(
            ({"name": "u1", "age": 20}, {"name": "u2", "age": 70}, {"name": "u1"}, {"age": "x"}, {}, 5)
        )
    pools: dict[str, Any] = {
        "sub": (subject,),
        "dom": ("d1", "d2", "d3"),
        "obj": NAMES,
        "act": (*ACTIONS, "reads"),
    }
    values = tuple(rng.choice(pools[name]) for name in request)
    if rng.random() < 1 / 30:
        values = (*values[:-1], rng.choice(("", 7, None)))
    return EngineRequest(context="", values=values, memberships={}, attributes={})
