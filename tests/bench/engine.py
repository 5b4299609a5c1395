"""In-process decisions at 10 to 100,000 rules, the same rules for every engine, and ours at 1,000,000.

Rule i lets role i read everything below area i; user i holds role i. The question is the last user's: allowed on the own
area, denied on another's. A deny is what a rule-walking engine pays in full.
"""

import gc
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import casbin
import cedarpy
import psutil

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.model.decision import Effect
from tests.bench.report import Figure, per_call_us

SIZES = (10, 1_000, 10_000, 100_000)
LARGEST = 1_000_000
FULL_COMPILE = 100_000
PACK = Path(__file__).parents[2] / "policies"
NO_ATTRIBUTES: MappingProxyType[str, bool] = MappingProxyType({})
NO_TEXTS: MappingProxyType[str, str] = MappingProxyType({})

CASBIN_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act
"""


def measure() -> list[Figure]:
    """Return the time of one decision for each engine and size, allow and deny, and how ours compares."""
    figures: list[Figure] = []
    for size in SIZES:
        ours = _portcullis(size)
        peers = {"pycasbin": _pycasbin(size), "cedarpy": _cedarpy(size)}
        for kind in ("allow", "deny"):
            mine = _timed(ours, kind)
            figures.append(Figure(name=f"portcullis {kind}, {size:,}", value=mine, unit="us"))
            for peer, ask in peers.items():
                theirs = _timed(ask, kind)
                figures.append(
                    Figure(
                        name=f"{peer} {kind}, {size:,}",
                        value=theirs,
                        unit="us",
                        versus=f"portcullis {kind}, {size:,}",
                        ratio=theirs / mine,
                    )
                )
    figures += _flatness(figures)
    figures += _harder()
    return figures


def _flatness(figures: list[Figure]) -> list[Figure]:
    """Return compile time and memory of 100,000 rules, and a decision at 1,000,000 beside one at 10."""
    start, resident = time.perf_counter(), _resident_bytes()
    snapshot = _compiled(_rows(FULL_COMPILE // 2))
    elapsed, grown = time.perf_counter() - start, _resident_bytes() - resident
    found = [
        Figure(name=f"compile, {FULL_COMPILE:,} rows", value=elapsed, unit="s"),
        Figure(name="memory of a compiled row", value=grown / FULL_COMPILE, unit="bytes"),
    ]
    del snapshot
    base = {figure.name: figure.value for figure in figures}
    largest = _portcullis(LARGEST)
    for kind in ("allow", "deny"):
        value = _timed(largest, kind)
        versus = f"portcullis {kind}, 10"
        name = f"portcullis {kind}, {LARGEST:,}"
        found.append(Figure(name=name, value=value, unit="us", versus=versus, ratio=value / base[versus]))
    return found


def _harder() -> list[Figure]:
    """Return the worst deny we know (20 roles, 8 segments, overlapping patterns), and what one condition costs."""
    deep = "a/b/c/d/e/f/g"
    patterns = [f"dataset/{'/'.join(deep.split('/')[:n])}/**" for n in range(1, 7)] + [
        "dataset/*/b/**",
        "dataset/a/*/**",
    ]
    grants = [
        _grant(number, f"role:r{number % 20}", pattern) for number, pattern in enumerate(patterns * 1_000, start=1)
    ]
    others = [_grant(len(grants) + n, f"role:other{n}", f"dataset/{deep}") for n in range(2_000)]
    links = [Row("g", ("user:u0", f"role:held{n}", "prod"), "assignments.csv", n) for n in range(20)]
    worst = _asking(_compiled([*grants, *others, *links]), "user:u0", f"dataset/{deep}")
    plain = _asking(_compiled([_grant(1, "user:u0", "dataset/**")]), "user:u0", "dataset/a")
    when = _grant(1, "user:u0", "dataset/**", "resource.sensitivity != 'high'")
    conditional = _asking(_compiled([when]), "user:u0", "dataset/a", {"resource.sensitivity": "low"})
    if worst() or not plain() or not conditional():
        sys.exit("bench: a hard question is answered wrongly; a figure for it would mean nothing")
    figures = {
        name: per_call_us(ask, rounds=3) for name, ask in (("worst", worst), ("plain", plain), ("cel", conditional))
    }
    ratio = figures["worst"] / figures["plain"]
    return [
        Figure(name="portcullis one grant", value=figures["plain"], unit="us"),
        Figure(
            name="portcullis worst deny", value=figures["worst"], unit="us", versus="portcullis one grant", ratio=ratio
        ),
        Figure(name="portcullis one CEL condition, extra", value=figures["cel"] - figures["plain"], unit="us"),
    ]


def _grant(line: int, role: str, pattern: str, when: str = "") -> Row:
    return Row("p", (role, "dataset.read", pattern, "prod", when, "", "allow"), "grants.csv", line)


def _asking(snapshot: Snapshot, user: str, name: str, attributes: Mapping[str, str] = NO_TEXTS) -> Callable[[], bool]:
    question = EngineRequest(
        context="", values=(user, "dataset.read", name, "prod"), memberships={}, attributes=attributes
    )
    return lambda: evaluate(snapshot, question, 0).effect is Effect.ALLOW


def _resident_bytes() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


Ask = Callable[[str], bool]


def _timed(ask: Ask, kind: str) -> float:
    if ask(kind) is not (kind == "allow"):
        sys.exit(f"bench: an engine answers `{kind}` wrongly; a figure for it would mean nothing")
    return per_call_us(lambda: ask(kind), rounds=3)


def _rows(size: int) -> list[Row]:
    grants = [
        Row(section="p", fields=(f"role:r{i}", "dataset.read", f"dataset/area{i}/**", "prod", "", "", "allow"),
            file="grants.csv", line=i + 1)
        for i in range(size)
    ]  # fmt: skip
    links = [
        Row(section="g", fields=(f"user:u{i}", f"role:r{i}", "prod"), file="assignments.csv", line=i + 1)
        for i in range(size)
    ]
    return grants + links


def _portcullis(size: int) -> Ask:
    snapshot = _compiled(_rows(size))
    questions = {kind: _question(size - 1, area) for kind, area in (("allow", size - 1), ("deny", 0))}
    return lambda kind: evaluate(snapshot, questions[kind], 0).effect is Effect.ALLOW


def _compiled(rows: list[Row]) -> Snapshot:
    texts = (PACK / "model.conf").read_text(), (PACK / "vocabulary.yaml").read_text()
    snapshot = compile_texts(*texts, rows)
    if not isinstance(snapshot, Snapshot):
        sys.exit("bench: " + "; ".join(str(finding) for finding in snapshot[:3]))
    return snapshot


def _question(user: int, area: int) -> EngineRequest:
    return EngineRequest(
        context="",
        values=(f"user:u{user}", "dataset.read", f"dataset/area{area}/table", "prod"),
        memberships=MappingProxyType({}),
        attributes=NO_ATTRIBUTES,
    )


def _pycasbin(size: int) -> Ask:
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=CASBIN_MODEL))
    enforcer.add_policies([[f"role:r{i}", f"dataset/area{i}/*", "dataset.read"] for i in range(size)])
    for i in range(size):
        enforcer.get_role_manager().add_link(f"user:u{i}", f"role:r{i}")
    last = f"user:u{size - 1}"
    areas = {"allow": f"dataset/area{size - 1}/table", "deny": "dataset/area0/table"}
    return lambda kind: bool(enforcer.enforce(last, areas[kind], "dataset.read"))


def _cedarpy(size: int) -> Ask:
    text = "\n".join(
        f'permit(principal in Role::"r{i}", action == Action::"read", resource in Area::"area{i}");'
        for i in range(size)
    )
    policies = cedarpy.PolicySet.from_str(text)
    last = size - 1
    entities = cedarpy.Entities.from_json_str(_entities(last))
    requests = {
        kind: {
            "principal": f'User::"u{last}"',
            "action": 'Action::"read"',
            "resource": f'Table::"area{area}"',
            "context": {},
        }
        for kind, area in (("allow", last), ("deny", 0))
    }
    return lambda kind: bool(cedarpy.is_authorized(requests[kind], policies, entities).allowed)


def _entities(last: int) -> str:
    """Return only the entities that the two questions touch: the kindest case for the peer."""
    tables = "".join(
        f',{{"uid":{{"type":"Table","id":"area{area}"}},"attrs":{{}},"parents":[{{"type":"Area","id":"area{area}"}}]}}'
        for area in sorted({0, last})
    )
    user = f'{{"uid":{{"type":"User","id":"u{last}"}},"attrs":{{}},"parents":[{{"type":"Role","id":"r{last}"}}]}}'
    return f"[{user}{tables}]"


with suppress(AttributeError):  # pycasbin logs every decision unless told not to
    casbin.util.log.disable_log()
