"""In-process decisions at 10, 1,000 and 100,000 rules, the same rules for every engine.

Rule i lets role i read everything below area i; user i holds role i. The question is the last user's: allowed on the own
area, denied on another's. A deny is what a rule-walking engine pays in full.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import casbin
import cedarpy

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.model.decision import Effect
from tests.bench.report import Figure, per_call_us

SIZES = (10, 1_000, 100_000)
PACK = Path(__file__).parents[2] / "policies"
NO_ATTRIBUTES: MappingProxyType[str, bool] = MappingProxyType({})

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
    return figures


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
    texts = (PACK / "model.conf").read_text(), (PACK / "vocabulary.yaml").read_text()
    snapshot = compile_texts(*texts, _rows(size))
    if not isinstance(snapshot, Snapshot):
        sys.exit("bench: " + "; ".join(str(finding) for finding in snapshot[:3]))
    questions = {kind: _question(size - 1, area) for kind, area in (("allow", size - 1), ("deny", 0))}
    return lambda kind: evaluate(snapshot, questions[kind], 0).effect is Effect.ALLOW


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
