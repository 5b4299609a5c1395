"""Models that are not the one we ship: branches, guards, residuals, five effects, attributes (CASBIN.md section 1)."""

from typing import Any

import pytest

from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.findings import Finding, errors
from pdp.errors import Reason
from pdp.limits import MAX_DECISION_STEPS
from pdp.model.decision import Effect
from pdp.model.vocabulary import Vocabulary

ALLOW = "some(where (p.eft == allow))"
NO_WORDS = Vocabulary(types={}, attributes={})


def model_text(matcher: str, *, policy: str = "sub, obj, act", effect: str = ALLOW, roles: str = "g = _, _") -> str:
    return (
        f"[request_definition]\nr = sub, obj, act\n[policy_definition]\np = {policy}\n[role_definition]\n{roles}\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def compiled(text: str, rows: str, *, served: bool = True) -> Snapshot | tuple[Finding, ...]:
    model, found = parse_model(text, file="model.conf", served=served)
    if model is None:
        return found
    read, found = parse_rows(rows, file="policy.csv", model=model)
    return found or compile_policy(model, NO_WORDS, read)


def snapshot_of(text: str, rows: str, *, served: bool = True) -> Snapshot:
    snapshot = compiled(text, rows, served=served)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    return snapshot


def ask(snapshot: Snapshot, *values: Any, now_ms: int = 0) -> Outcome:
    return evaluate(snapshot, EngineRequest(context="", values=values, memberships={}, attributes={}), now_ms)


def allowed(snapshot: Snapshot, *values: Any) -> bool:
    return ask(snapshot, *values).effect is Effect.ALLOW


def test_a_disjunction_is_planned_and_not_scanned() -> None:
    text = model_text(
        'r.sub == "root" || g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && (r.act == p.act || p.act == "*")'
    )
    snapshot = snapshot_of(text, "p, alice, /d/:id, GET\np, team, /e/:id, *\ng, carol, team\n")
    assert [[column.name for column in branch.columns] for branch in snapshot.contexts[""].plan.branches] == [
        [],
        ["act", "obj", "sub"],
    ]
    assert not snapshot.warnings
    assert allowed(snapshot, "root", "/x", "DELETE")
    assert allowed(snapshot, "alice", "/d/1", "GET")
    assert not allowed(snapshot, "alice", "/d/1", "POST")
    assert not allowed(snapshot, "alice", "/d/1/2", "GET")
    assert ask(snapshot, "carol", "/e/1", "POST").role_path == ("carol", "team")


def test_what_cannot_be_indexed_is_pointed_out() -> None:
    snapshot = snapshot_of(model_text("r.sub != p.sub"), "p, alice, x, y\n")
    assert [item.code for item in snapshot.warnings] == ["PC320"]
    assert "a comparison with `!=`" in snapshot.warnings[0].message
    assert allowed(snapshot, "bob", "x", "y")
    assert not allowed(snapshot, "alice", "x", "y")


@pytest.mark.holds("L3", "adv_cycles")
def test_a_decision_takes_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(model_text("r.sub != p.sub"), "p, alice, x, y\np, bob, x, y\n")
    assert MAX_DECISION_STEPS > 2
    monkeypatch.setattr("pdp.engine.evaluate.MAX_DECISION_STEPS", 1)
    assert ask(snapshot, "alice", "x", "y").reason is Reason.BUDGET_EXCEEDED
    monkeypatch.setattr("pdp.engine.evaluate.MAX_DECISION_STEPS", 2)
    assert ask(snapshot, "alice", "x", "y").determining == ("policy.csv:2",)


@pytest.mark.parametrize(
    ("effect", "rows", "answer"),
    [
        (ALLOW, "p, a, x, y, deny\np, a, x, y, allow\n", Reason.GRANTED),
        (f"{ALLOW} && !some(where (p.eft == deny))", "p, a, x, y, deny\np, a, x, y, allow\n", Reason.DENIED_BY_RULE),
        ("!some(where (p.eft == deny))", "p, a, x, y, deny\n", Reason.DENIED_BY_RULE),
        ("!some(where (p.eft == deny))", "p, b, x, y, deny\n", Reason.GRANTED),
        ("priority(p.eft) || deny", "p, a, x, y, deny\np, a, x, y, allow\n", Reason.DENIED_BY_RULE),
        ("priority(p.eft) || deny", "p, a, x, y, allow\np, a, x, y, deny\n", Reason.GRANTED),
        ("subjectPriority(p.eft) || deny", "p, t, x, y, deny\np, a, x, y, allow\ng, a, t\n", Reason.GRANTED),
    ],
)
def test_the_five_effects(effect: str, rows: str, answer: Reason) -> None:
    text = model_text("g(r.sub, p.sub) && r.obj == p.obj", policy="sub, obj, act, eft", effect=effect)
    assert ask(snapshot_of(text, rows, served=False), "a", "x", "y").reason is answer


def test_rows_by_priority_are_taken_lowest_number_first_and_ties_by_the_file() -> None:
    text = model_text("r.sub == p.sub", policy="priority, sub, obj, act, eft", effect="priority(p.eft) || deny")
    rows = "p, 10, a, x, y, allow\np, 1, a, x, y, deny\np, -5, b, x, y, allow\np, -5, b, x, y, deny\n"
    snapshot = snapshot_of(text, rows)
    assert [(item.code, item.line) for item in snapshot.warnings] == [("PC143", 4)]
    assert ask(snapshot, "a", "x", "y").determining == ("policy.csv:2",)
    assert ask(snapshot, "b", "x", "y").determining == ("policy.csv:3",)


def test_the_text_of_an_eval_column_is_an_expression_of_the_same_grammar() -> None:
    text = model_text("eval(p.rule) && r.act == p.act", policy="rule, act")
    snapshot = snapshot_of(text, 'p, "r.sub.age >= 18 && r.sub.name in [""ann"", ""bob""]", read\n')
    assert allowed(snapshot, {"age": 20, "name": "bob"}, "x", "read")
    assert not allowed(snapshot, {"age": 17, "name": "bob"}, "x", "read")
    assert ask(snapshot, {"name": "bob"}, "x", "read").reason is Reason.CONDITION_ERROR
    assert ask(snapshot, {"age": "20", "name": "bob"}, "x", "read").reason is Reason.CONDITION_ERROR
    assert ask(snapshot, {"name": "eve"}, "x", "read").reason is Reason.NO_GRANT


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("true", "PC210"),
        ("1 == 1", "PC210"),
        ("true) or (true", "PC211"),
        ("r.sub.age >", "PC211"),
        ("r.nobody == p.act", "PC203"),
        ("eval(p.rule) && r.sub == p.act", "PC202"),
        ("r.sub", ""),
    ],
)
def test_the_text_of_an_eval_column_is_checked_at_load(rule: str, code: str) -> None:
    result = compiled(model_text("eval(p.rule)", policy="rule, act"), f'p, "{rule}", read\n')
    found = errors(result) if isinstance(result, tuple) else ()
    assert [item.code for item in found] == ([code] if code else [])


def test_a_list_may_be_an_attribute_of_the_request() -> None:
    snapshot = snapshot_of(model_text("p.obj in r.sub.objects && r.act == p.act"), "p, x, doc, read\n")
    assert allowed(snapshot, {"objects": ["doc", "other"]}, "x", "read")
    assert not allowed(snapshot, {"objects": ["other"]}, "x", "read")
    assert ask(snapshot, {"objects": "doc"}, "x", "read").reason is Reason.CONDITION_ERROR


def test_a_value_that_cannot_be_looked_up_is_an_error_of_its_comparison_and_not_a_miss() -> None:
    text = model_text(
        "r.sub == p.sub && r.act == p.act", policy="sub, act, eft", effect=f"{ALLOW} && !some(where (p.eft == deny))"
    )
    snapshot = snapshot_of(text, "p, alice, read, allow\np, 5, write, deny\n")
    assert ask(snapshot, 5, "x", "write").reason is Reason.CONDITION_ERROR
    assert ask(snapshot, 5, "x", "read").determining == ("policy.csv:1",)
    assert ask(snapshot, 5, "x", "other").reason is Reason.NO_GRANT


def test_only_exact_built_in_values_may_be_asked_with() -> None:
    class Anyone(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    snapshot = snapshot_of(model_text("r.sub.name == p.sub"), "p, alice, x, y\n")
    assert allowed(snapshot, {"name": "alice"}, "x", "y")
    for value in (Anyone("bob"), {"name": Anyone("bob")}, {1: "alice"}, object(), {"name": {"set"}}, ""):
        assert ask(snapshot, value, "x", "y").reason is Reason.BAD_REQUEST


def test_patterns_of_roles_and_domains_where_the_model_names_the_function() -> None:
    text = (
        "[request_definition]\nr = sub, dom, obj\n[policy_definition]\np = sub, dom, obj\n[role_definition]\n"
        "g = _, _, _\ng2 = _, _\n[role_matching]\ng_domain = keyMatch\ng2 = keyMatch2\n[policy_effect]\n"
        f"e = {ALLOW}\n[matchers]\nm = g(r.sub, p.sub, r.dom) && r.dom == p.dom && g2(r.obj, p.obj)\n"
    )
    snapshot = snapshot_of(text, "p, admin, d1, books\ng, alice, admin, *\ng, bob, admin, d2\ng2, /book/:id, books\n")
    assert allowed(snapshot, "alice", "d1", "/book/1")
    assert ask(snapshot, "alice", "d1", "/book/1").role_path == ("alice", "admin")
    assert not allowed(snapshot, "bob", "d1", "/book/1")
    assert not allowed(snapshot, "alice", "d1", "/book/1/2")


def test_a_domain_of_plain_roles_is_only_itself() -> None:
    text = (
        "[request_definition]\nr = sub, dom\n[policy_definition]\np = sub, dom\n[role_definition]\ng = _, _, _\n"
        f"[policy_effect]\ne = {ALLOW}\n[matchers]\nm = g(r.sub, p.sub, r.dom) && r.dom == p.dom\n"
    )
    snapshot = snapshot_of(text, "p, admin, d1\ng, alice, boss, d1\ng, boss, admin, d1\ng, bob, admin, *\n")
    assert allowed(snapshot, "alice", "d1")
    assert not allowed(snapshot, "bob", "d1")


def test_roles_for_a_time_in_a_plain_model() -> None:
    text = model_text("g(r.sub, p.sub)", roles="g = _, _, (_, _)")
    snapshot = snapshot_of(text, "p, admin, x, y\ng, a, admin, 1970-01-01 00:00:00, 1970-01-01T00:00:10Z\n")
    outcome = ask(snapshot, "a", "x", "y", now_ms=5)
    assert (outcome.effect, outcome.valid_until_ms) == (Effect.ALLOW, 10_000)
    assert ask(snapshot, "a", "x", "y", now_ms=10_000).effect is Effect.DENY


def test_time_match_reads_the_clock_and_says_so() -> None:
    text = model_text("r.sub == p.sub && timeMatch(p.obj, p.act)")
    snapshot = snapshot_of(text, "p, a, 1970-01-01 00:00:00, _\n")
    outcome = ask(snapshot, "a", "x", "y", now_ms=1)
    assert (outcome.effect, outcome.reads_now) == (Effect.ALLOW, True)
    assert ask(snapshot, "a", "x", "y", now_ms=0).effect is Effect.DENY


def test_a_function_of_the_caller_is_a_residual_and_may_not_grant_by_raising() -> None:
    def older(left: object, right: object) -> object:
        return int(str(left)) > int(str(right))

    model, found = parse_model(model_text("older(r.sub, p.sub)"), file="model.conf", local={"older": older})
    assert model is not None, found
    rows, _ = parse_rows("p, 18, x, y\n", file="policy.csv", model=model)
    snapshot = compile_policy(model, NO_WORDS, rows)
    assert isinstance(snapshot, Snapshot)
    assert allowed(snapshot, "20", "x", "y")
    assert not allowed(snapshot, "17", "x", "y")
    assert ask(snapshot, "old", "x", "y").reason is Reason.CONDITION_ERROR


def test_two_sets_are_chosen_by_context() -> None:
    text = (
        "[request_definition]\nr = sub, obj\nr2 = sub, act\n[policy_definition]\np = sub, obj\np2 = sub, act, eft\n"
        f"[policy_effect]\ne = {ALLOW}\ne2 = {ALLOW} && !some(where (p2.eft == deny))\n"
        "[matchers]\nm = r.sub == p.sub && r.obj == p.obj\nm2 = r2.sub == p2.sub && r2.act == p2.act\n"
    )
    snapshot = snapshot_of(text, "p, a, x\np2, a, read, deny\np2, a, read, allow\n")
    assert allowed(snapshot, "a", "x")
    second = EngineRequest(context="2", values=("a", "read"), memberships={}, attributes={})
    assert evaluate(snapshot, second, 0).reason is Reason.DENIED_BY_RULE


@pytest.mark.parametrize(
    ("matcher", "row", "code"),
    [
        ("keyMatch2(r.obj, p.obj)", "p, a, /x/*, y, allow", "PC306"),
        ("globMatch(r.obj, p.obj)", "p, a, /x/**, y, deny", "PC313"),
        ("r.obj == p.obj", "p, 3.5, x, y, allow", "PC140"),
        ("r.obj == p.obj", "p, 99999999999, x, y, allow", "PC140"),
    ],
)
def test_doubtful_rows_are_pointed_out(matcher: str, row: str, code: str) -> None:
    policy = "priority, obj, act, eft" if code == "PC140" else "sub, obj, act, eft"
    effect = "priority(p.eft) || deny" if code == "PC140" else f"{ALLOW} && !some(where (p.eft == deny))"
    result = compiled(model_text(matcher, policy=policy, effect=effect), row + "\n")
    found = result.warnings if isinstance(result, Snapshot) else result
    assert [item.code for item in found] == [code]


def test_subjects_are_ranked_by_their_column_and_one_outside_the_roles_is_pointed_out() -> None:
    effect = "subjectPriority(p.eft) || deny"
    refused = compiled(model_text("g(r.sub, p.who)", policy="who, obj, eft", effect=effect), "")
    assert isinstance(refused, tuple)
    assert [item.code for item in refused] == ["PC141"]
    rows = "p, boss, x, y, deny\np, a, x, y, allow\ng, a, boss\np, stranger, x, y, allow\n"
    snapshot = snapshot_of(model_text("g(r.sub, p.sub)", policy="sub, obj, act, eft", effect=effect), rows)
    assert [(item.code, item.line) for item in snapshot.warnings] == [("PC144", 4)]
    assert ask(snapshot, "a", "x", "y").determining == ("policy.csv:2",)


def test_a_domain_that_is_no_text_is_an_error_and_not_a_domain_without_roles() -> None:
    text = (
        "[request_definition]\nr = sub, dom\n[policy_definition]\np = sub, eft\n[role_definition]\ng = _, _, _\n"
        f"[policy_effect]\ne = {ALLOW} && !some(where (p.eft == deny))\n"
        '[matchers]\nm = g(r.sub, p.sub, r.dom) || r.sub == "ana" && p.sub == "everyone"\n'
    )
    snapshot = snapshot_of(text, "p, everyone, allow\np, barred, deny\ng, eve, barred, d1\n")
    assert allowed(snapshot, "ana", "d1")
    for domain in (7, None, True, ["d1"]):
        outcome = ask(snapshot, "ana", domain)
        assert (outcome.reason, outcome.determining) == (Reason.CONDITION_ERROR, ("policy.csv:2",))


@pytest.mark.parametrize("effect", ["priority(p.eft) || deny", "subjectPriority(p.eft) || deny"])
def test_where_the_first_row_decides_a_deny_that_errs_denies_and_an_allow_that_errs_is_passed_over(effect: str) -> None:
    text = model_text("r.sub.name == p.sub && eval(p.rule)", policy="sub, rule, eft", effect=effect)
    rows = "p, ana, r.sub.age < 18, {first}\np, ana, r.obj == 'x', {then}\n"
    young, unknown = {"name": "ana", "age": 10}, {"name": "ana"}
    denying = snapshot_of(text, rows.format(first="deny", then="allow"))
    assert ask(denying, young, "x", "y").reason is Reason.DENIED_BY_RULE
    outcome = ask(denying, unknown, "x", "y")
    assert (outcome.reason, outcome.determining) == (Reason.CONDITION_ERROR, ("policy.csv:1",))
    allowing = snapshot_of(text, rows.format(first="allow", then="deny"))
    assert ask(allowing, unknown, "x", "y").reason is Reason.DENIED_BY_RULE
    outcome = ask(allowing, unknown, "z", "y")
    assert (outcome.reason, outcome.determining) == (Reason.CONDITION_ERROR, ("policy.csv:1",))


@pytest.mark.parametrize("sooner", ["g", "g2"])
def test_an_answer_of_two_role_graphs_counts_until_the_first_of_them_changes(sooner: str) -> None:
    """Whichever graph is asked first: the later end never hides the sooner one, nor does a graph without any."""
    text = model_text("g(r.sub, p.sub) && g2(r.obj, p.obj)", roles="g = _, _, (_, _)\ng2 = _, _, (_, _)")
    ends = {section: "1970-01-02T00:00:00Z" if section == sooner else "1970-01-03T00:00:00Z" for section in ("g", "g2")}
    policy = "p, admin, books, read\n"
    both = f"g, alice, admin, _, {ends['g']}\ng2, book, books, _, {ends['g2']}\n"
    outcome = ask(snapshot_of(text, policy + both), "alice", "book", "read", now_ms=1)
    assert (outcome.effect, outcome.valid_until_ms) == (Effect.ALLOW, 86_400_000)
    one = f"g, alice, admin, _, {ends['g']}\ng2, book, books\n"
    assert ask(snapshot_of(text, policy + one), "alice", "book", "read", now_ms=1).valid_until_ms is not None
    other = f"g, alice, admin\ng2, book, books, _, {ends['g2']}\n"
    assert ask(snapshot_of(text, policy + other), "alice", "book", "read", now_ms=1).valid_until_ms is not None
