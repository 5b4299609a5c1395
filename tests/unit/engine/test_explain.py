import pytest

from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest
from pdp.engine.explain import nearest_miss
from pdp.model.attributes import instant_ms
from pdp.model.vocabulary import Vocabulary
from tests.unit.engine.conftest import Workbench

ROWS = """
g, user:dana, role:data-scientist, dev
g3, workload:spiffe://d/ns/lab/**, segment:notebooks
g2, dataset/customers/*, collection:pii
p, role:data-scientist, dataset.read|list, dataset/finance/**, dev, , , allow
p, role:data-scientist, dataset.read, collection:pii, *, , , deny
p, role:release-manager, model.promote, model/**, prod, size(resource.approvals) >= 2, , allow
p2, segment:apps, endpoint.invoke, segment:serving, , allow
p2, segment:notebooks, *, segment:serving, , deny
"""

FINANCE = "`role:data-scientist` grants `dataset.read` on `dataset/finance/**` in `dev`"
PROMOTE = "`role:release-manager` grants `model.promote` on `model/**` in `prod`"


@pytest.fixture(scope="module")
def snapshot(bench: Workbench) -> Snapshot:
    return bench.snapshot(ROWS)


@pytest.mark.parametrize(
    ("values", "failed", "text"),
    [
        (
            ("user:dana", "dataset.read", "dataset/finance/q1", "prod"),
            "environment",
            f"{FINANCE}; the asset is in `prod`",
        ),
        (
            ("user:dana", "dataset.write", "dataset/finance/q1", "dev"),
            "action",
            f"{FINANCE.replace('`dataset.read`', '`dataset.read|list`')}; the question asks for `dataset.write`",
        ),
        (
            ("user:dana", "dataset.read", "dataset/hr/q1", "dev"),
            "resource",
            f"{FINANCE}; the question names `dataset/hr/q1`",
        ),
        (
            ("user:eve", "dataset.read", "dataset/finance/q1", "dev"),
            "role",
            f"{FINANCE}; `user:eve` does not hold it in `dev`",
        ),
        (
            ("user:dana", "dataset.read", "dataset/customers/cards", "dev"),
            "deny",
            "`role:data-scientist` denies `dataset.read` on `collection:pii`",
        ),
        (
            ("role:release-manager", "model.promote", "model/x@1", "prod"),
            "condition",
            f"{PROMOTE}; its condition `size(resource.approvals) >= 2` cannot be evaluated: `resource.approvals` is not known",
        ),
    ],
)
def test_the_nearest_miss_says_what_stood_in_the_way(
    snapshot: Snapshot, values: tuple[str, ...], failed: str, text: str
) -> None:
    request = EngineRequest(context="", values=values, memberships={}, attributes={})
    miss = nearest_miss(snapshot, request, 0)
    assert miss is not None
    assert (miss.failed, miss.text) == (failed, text)


def test_a_condition_that_does_not_hold_is_quoted(snapshot: Snapshot) -> None:
    values = ("role:release-manager", "model.promote", "model/x@1", "prod")
    request = EngineRequest(context="", values=values, memberships={}, attributes={"resource.approvals": ("a",)})
    miss = nearest_miss(snapshot, request, 0)
    assert miss is not None
    assert miss.text.endswith("its condition `size(resource.approvals) >= 2` does not hold")


def test_a_segment_that_may_not_be_reached_is_named(snapshot: Snapshot) -> None:
    values = ("workload:spiffe://d/ns/x/sa/y", "endpoint.invoke", "endpoint/x")
    request = EngineRequest(context="2", values=values, memberships={"dst": ("segment:serving",)}, attributes={})
    miss = nearest_miss(snapshot, request, 0)
    assert miss is not None
    assert miss.failed == "segment"
    assert miss.text == "`segment:apps` grants `endpoint.invoke` on `segment:serving`; the caller is in `segment:none`"


def test_what_nothing_comes_near_to_has_no_nearest_miss(snapshot: Snapshot) -> None:
    request = EngineRequest(
        context="", values=("user:eve", "run.read", "run/x", "staging"), memberships={}, attributes={}
    )
    assert nearest_miss(snapshot, request, 0) is None
    assert nearest_miss(snapshot, EngineRequest(context="9", values=(), memberships={}, attributes={}), 0) is None


def ask(bench: Workbench, rows: str, now_ms: int = 0, **attributes: bool | str) -> tuple[str, str, str]:
    values = ("user:bob", "model.promote", "model/x@1", "prod")
    request = EngineRequest(context="", values=values, memberships={}, attributes=attributes)
    miss = nearest_miss(bench.snapshot(rows), request, now_ms)
    assert miss is not None
    return miss.rule, miss.failed, miss.text


WINDOW = "g, user:bob, role:release-manager, prod, 2026-11-20T08:00:00Z, 2026-11-21T08:00:00Z\n"
PLAIN = "p, role:release-manager, model.promote, model/**, prod, , , allow\n"


@pytest.mark.parametrize(
    ("at", "differs"),
    [
        ("2026-11-19T00:00:00Z", "holds it only from 2026-11-20T08:00:00Z"),
        ("2026-11-21T08:00:00Z", "held it until 2026-11-21T08:00:00Z"),
    ],
)
def test_a_role_outside_its_time_says_when(bench: Workbench, at: str, differs: str) -> None:
    told = ask(bench, WINDOW + PLAIN, instant_ms(at))
    assert told == ("rows.csv:2", "time", f"{PROMOTE}; `user:bob` {differs}")


def test_a_deny_says_whether_its_condition_holds_or_cannot_be_ruled_out(bench: Workbench) -> None:
    deny = PLAIN.replace(", , , allow", ", resource.scan_status != 'clean', , deny")
    rows = "g, user:bob, role:release-manager, prod\n" + PLAIN + deny
    sentence = PROMOTE.replace("grants", "denies") + "; its condition `resource.scan_status != 'clean'` "
    unknown = "cannot be evaluated: `resource.scan_status` is not known, and what cannot be ruled out counts"
    assert ask(bench, rows) == ("rows.csv:3", "deny", sentence + unknown)
    assert ask(bench, rows, **{"resource.scan_status": "bad"}) == ("rows.csv:3", "deny", f"{sentence}holds")


ABAC = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, rule, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub.name == "root" || g(r.sub.name, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act && eval(p.rule)
"""
FIRST = "`p, admin, /a/*, read, r.sub.age > 18, allow` allows; "
ABAC_ROWS = (
    "p, admin, /a/*, read, r.sub.age > 18, allow\np, admin, /b/*, read, \"r.sub.city in ['Bern', 'Rome']\", allow\n"
    "p, admin, /a/secret, read, r.sub.age < 90, deny\ng, ana, admin\n"
)


@pytest.mark.parametrize(
    ("subject", "what", "action", "told"),
    [
        (
            {"name": "ana", "age": 18},
            "/a/1",
            "read",
            (
                "p.csv:1",
                "matcher",
                "`p, admin, /a/*, read, r.sub.age > 18, allow` allows; `eval(p.rule)` does not hold",
            ),
        ),
        (
            {"name": "eve", "age": 30},
            "/a/1",
            "read",
            (
                "p.csv:1",
                "matcher",
                FIRST + "`g(r.sub.name, p.sub)` does not hold: `r.sub.name` is `eve`",
            ),
        ),
        (
            {"name": "ana", "age": 30},
            "/c/1",
            "write",
            (
                "p.csv:1",
                "question",
                FIRST + '`r.sub.name == "root"` does not hold: `r.sub.name` is `ana`',
            ),
        ),
        (
            {"name": "ana", "age": 30},
            "/a/secret",
            "read",
            ("p.csv:3", "deny", "`p, admin, /a/secret, read, r.sub.age < 90, deny` denies"),
        ),
        (
            {"name": "ana"},
            "/a/secret",
            "read",
            (
                "p.csv:3",
                "deny",
                "`p, admin, /a/secret, read, r.sub.age < 90, deny` denies; it cannot be ruled out, and so it counts",
            ),
        ),
    ],
)
def test_any_matcher_says_which_part_of_it_does_not_hold(
    subject: object, what: str, action: str, told: tuple[str, str, str]
) -> None:
    model, found = parse_model(ABAC, file="model.conf")
    assert model is not None, found
    rows, problems = parse_rows(ABAC_ROWS, file="p.csv", model=model)
    assert not problems
    compiled = compile_policy(model, Vocabulary(types={}, attributes={}), rows)
    assert isinstance(compiled, Snapshot), [str(item) for item in compiled]
    miss = nearest_miss(
        compiled, EngineRequest(context="", values=(subject, what, action), memberships={}, attributes={}), 0
    )
    assert miss is not None
    assert (miss.rule, miss.failed, miss.text) == told
