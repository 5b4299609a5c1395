import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any

import pytest

from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.index import Search
from pdp.errors import Reason
from pdp.model.attributes import Value
from pdp.model.decision import Effect
from tests.unit.engine.conftest import Workbench


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def ask(
    snapshot: Snapshot, *values: str, groups: tuple[str, ...] = (), now_ms: int = 0, **attributes: Value
) -> Outcome:
    named = {name.replace("_", ".", 1): value for name, value in attributes.items()}
    request = EngineRequest(context="", values=values, memberships={"sub": groups}, attributes=named)
    return evaluate(snapshot, request, now_ms)


def test_an_allow_names_its_row_its_path_and_its_obligations(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "g, group:web, role:team, prod\ng, role:team, role:app, *\n"
        "p, role:app, endpoint.invoke, endpoint/**, prod, , recheck_after=10s, allow\n"
        "p, role:team, endpoint.*, endpoint/fraud, *, , recheck_after=5s; max_tokens=9, allow\n"
    )
    outcome = ask(snapshot, "user:sam", "endpoint.invoke", "endpoint/fraud", "prod", groups=("group:web",))
    assert (outcome.effect, outcome.reason) == (Effect.ALLOW, Reason.GRANTED)
    assert outcome.determining == ("rows.csv:3", "rows.csv:4")
    assert outcome.role_path == ("group:web", "role:team", "role:app")
    assert [str(duty) for duty in outcome.obligations] == ["max_tokens=9", "recheck_after=5s"]


def test_the_one_grant_that_holds_keeps_its_obligations_beside_one_that_does_not(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "p, user:a, dataset.read, dataset/**, dev, request.purpose == 'ads', max_rows=1, allow\n"
        "p, user:a, dataset.read, dataset/x, dev, request.purpose == 'audit', max_rows=7, allow\n"
    )
    for purpose, wanted in (("ads", "max_rows=1"), ("audit", "max_rows=7")):
        outcome = ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", request_purpose=purpose)
        assert [str(duty) for duty in outcome.obligations] == [wanted]


def test_an_answer_counts_until_the_first_of_several_links_changes_it(bench: Workbench) -> None:
    later, sooner = "2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"
    for order in ((later, sooner), (sooner, later)):
        rows = "".join(f"g, user:a, role:r{number}, dev, _, {end}\n" for number, end in enumerate(order))
        rows += "".join(f"p, role:r{number}, dataset.read, dataset/**, dev, , , allow\n" for number in range(2))
        outcome = ask(
            bench.snapshot(rows), "user:a", "dataset.read", "dataset/x", "dev", now_ms=ms("2026-01-01T00:00:00")
        )
        assert outcome.valid_until_ms == ms("2026-02-01T00:00:00")


def test_a_deny_beats_an_allow_and_stops_its_obligations(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "p, user:a, dataset.read, dataset/**, dev, , max_rows=1, allow\n"
        "p, user:a, dataset.*, collection:pii, *, , , deny\n"
        "g2, dataset/customers/*, collection:pii\n"
    )
    assert ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev").effect is Effect.ALLOW
    outcome = ask(snapshot, "user:a", "dataset.read", "dataset/customers/cards", "dev")
    assert (outcome.effect, outcome.reason) == (Effect.DENY, Reason.DENIED_BY_RULE)
    assert (outcome.determining, outcome.obligations) == (("rows.csv:2",), ())


def test_a_deny_whose_condition_errs_denies(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "p, user:a, dataset.read, dataset/**, dev, , , allow\n"
        "p, user:a, dataset.read, dataset/**, dev, request.purpose == 'ads', , deny\n"
    )
    assert ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev").reason is Reason.CONDITION_ERROR
    assert ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", request_purpose="x").effect is Effect.ALLOW
    assert (
        ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", request_purpose="ads").reason
        is Reason.DENIED_BY_RULE
    )


def test_an_allow_whose_condition_errs_grants_nothing_and_says_so(bench: Workbench) -> None:
    snapshot = bench.snapshot("p, user:a, dataset.read, dataset/**, dev, request.purpose == 'x', , allow\n")
    outcome = ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev")
    assert (outcome.effect, outcome.reason, outcome.determining) == (
        Effect.DENY,
        Reason.CONDITION_ERROR,
        ("rows.csv:1",),
    )


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("dataset/a", "dataset/a", True),
        ("dataset/a", "dataset/a@1", True),
        ("dataset/a@1", "dataset/a@1", True),
        ("dataset/a@1", "dataset/a@2", False),
        ("dataset/a@1", "dataset/a", False),
        ("dataset/a", "dataset/a/b", False),
        ("dataset/*", "dataset/a", True),
        ("dataset/*", "dataset/a/b", False),
        ("dataset/*/b", "dataset/a/b", True),
        ("dataset/**", "dataset/a", True),
        ("dataset/**", "dataset/a/b/c@1", True),
        ("dataset/a/**", "dataset/a", False),
        ("dataset/a/**", "dataset/ab/c", False),
        ("dataset/**@1", "dataset/a/b@1", True),
        ("dataset/**@1", "dataset/a/b", False),
        ("dataset/*@1", "dataset/a@2", False),
        ("dataset/a.b", "dataset/axb", False),
        ("model/**", "dataset/a", False),
    ],
)
def test_patterns_cover_what_the_grammar_says(bench: Workbench, pattern: str, name: str, covered: bool) -> None:  # noqa: FBT001
    snapshot = bench.snapshot(f"p, user:a, *, {pattern}, dev, , , allow\n")
    assert (ask(snapshot, "user:a", "dataset.read", name, "dev").effect is Effect.ALLOW) is covered


def test_a_role_for_a_time_counts_strictly_within_it_and_says_when_to_look_again(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "g, user:a, role:x, dev, 2026-11-20T08:00:00Z, 2026-11-21T08:00:00Z\n"
        "p, role:x, dataset.read, dataset/**, dev, , , allow\n"
    )
    start, end = ms("2026-11-20T08:00:00"), ms("2026-11-21T08:00:00")
    for now_ms, effect, until in (
        (start - 5, Effect.DENY, start + 1),
        (start, Effect.DENY, start + 1),
        (start + 1, Effect.ALLOW, end),
        (end - 1, Effect.ALLOW, end),
        (end, Effect.DENY, None),
    ):
        outcome = ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", now_ms=now_ms)
        assert (outcome.effect, outcome.valid_until_ms) == (effect, until)


def test_windows_along_a_path_meet(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "g, user:a, role:x, dev, 2026-01-01T00:00:00Z, 2026-03-01T00:00:00Z\n"
        "g, role:x, role:y, dev, 2026-02-01T00:00:00Z, _\np, role:y, dataset.read, dataset/**, dev, , , allow\n"
    )
    assert (
        ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", now_ms=ms("2026-01-15T00:00:00")).effect
        is Effect.DENY
    )
    held = ask(snapshot, "user:a", "dataset.read", "dataset/x", "dev", now_ms=ms("2026-02-15T00:00:00"))
    assert (held.effect, held.valid_until_ms) == (Effect.ALLOW, ms("2026-03-01T00:00:00"))
    assert held.role_path == ("user:a", "role:x", "role:y")


def test_a_name_with_an_at_sign_is_no_version_of_a_shorter_name(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "g, user:bob, role:x, dev\ng2, dataset/a, collection:c\np, role:x, *, dataset/**, dev, , , allow\n"
    )
    assert ask(snapshot, "user:bob", "dataset.read", "dataset/x", "dev").effect is Effect.ALLOW
    assert ask(snapshot, "user:bob@evil.example", "dataset.read", "dataset/x", "dev").effect is Effect.DENY


def test_rules_that_oblige_to_different_versions_deny(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "p, user:a, model.read_metadata, model/**, dev, , pin_version=1, allow\n"
        "p, user:a, model.*, model/**, dev, , pin_version=2, allow\n"
    )
    outcome = ask(snapshot, "user:a", "model.read_metadata", "model/x", "dev")
    assert (outcome.effect, outcome.reason) == (Effect.DENY, Reason.OBLIGATION_UNSUPPORTED)


def test_reads_now_only_if_a_condition_that_was_evaluated_does(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "p, user:a, dataset.read, dataset/a, dev, now > timestamp('1970-01-01T00:00:00Z'), , allow\n"
        "p, user:a, dataset.read, dataset/b, dev, , , allow\n"
    )
    assert ask(snapshot, "user:a", "dataset.read", "dataset/a", "dev", now_ms=5).reads_now
    assert not ask(snapshot, "user:a", "dataset.read", "dataset/b", "dev", now_ms=5).reads_now


def lines_run(call: Callable[[], object]) -> int:
    """Return how many lines of Python `call` runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_decision_looks_at_no_more_rows_when_there_are_more(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost that matters is counted, not timed: rows visited and lines run, at 10,000 and 100,000 rows (CASBIN.md 3)."""
    visited: list[int] = []

    rules_of = Search.rules

    def counting(self: Search, *question: Any) -> list[Any]:
        rules = rules_of(self, *question)
        visited.append(len(rules))
        return rules

    monkeypatch.setattr(Search, "rules", counting)
    costs = []
    for count in (5_000, 50_000):
        rows = [
            Row("p", (f"role:r{n}", "dataset.read", f"dataset/t{n}/**", "dev", "", "", "allow"), "g.csv", n)
            for n in range(count)
        ]
        rows += [Row("g", (f"user:u{n}", f"role:r{n}", "dev"), "a.csv", n) for n in range(count)]
        snapshot = compile_policy(bench.model, bench.vocabulary, rows)
        assert isinstance(snapshot, Snapshot)
        visited.clear()
        allow = lines_run(partial(ask, snapshot, "user:u7", "dataset.read", "dataset/t7/x", "dev"))
        deny = lines_run(partial(ask, snapshot, "user:u7", "dataset.read", "dataset/t8/x", "dev"))
        costs.append((list(visited), allow, deny))
    assert costs[0] == costs[1]
    assert costs[0][0] == [1, 0]


def test_a_question_of_the_wrong_length_or_set_is_denied(bench: Workbench) -> None:
    snapshot = bench.snapshot("g, user:a, role:x, dev\np, role:x, dataset.read, dataset/a, dev, , , allow\n")
    good = ("user:a", "dataset.read", "dataset/a", "dev")
    assert ask(snapshot, *good).effect is Effect.ALLOW
    for context, values in (("", ()), ("", good[:3]), ("", (*good, "x")), ("7", good), ("2", good)):
        outcome = evaluate(snapshot, EngineRequest(context, values, {}, {}), 0)
        assert (outcome.effect, outcome.reason) == (Effect.DENY, Reason.NO_GRANT)


def test_only_a_condition_that_was_looked_at_reads_the_clock(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        "g, user:a, role:x, *\np, role:x, dataset.read, dataset/a, dev, , , allow\n"
        "p, role:x, dataset.read, dataset/b, dev, now > timestamp('1970-01-01T00:00:00Z'), , allow\n"
    )
    told = [
        ask(snapshot, "user:a", "dataset.read", name, "dev", now_ms=5).reads_now for name in ("dataset/a", "dataset/b")
    ]
    assert told == [False, True]
    assert ask(snapshot, "user:a", "dataset.read", "dataset/c", "dev").reads_now is False


def test_a_name_is_looked_up_in_each_role_section_that_a_column_names(bench: Workbench) -> None:
    text = bench.model_text.replace("g2(r.obj, p.obj))", "g2(r.obj, p.obj) || g3(r.obj, p.obj))")
    assert text != bench.model_text
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    rows, problems = parse_rows(
        "g, user:a, role:x, dev\ng2, dataset/a, collection:c\ng3, dataset/b, segment:s\ng3, segment:s, segment:t\n"
        "p, role:x, dataset.read, collection:c, dev, , , allow\np, role:x, dataset.read, segment:t, dev, , , allow\n",
        file="rows.csv",
        model=model,
    )
    assert not problems
    snapshot = compile_policy(model, bench.vocabulary, rows)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    answers = [ask(snapshot, "user:a", "dataset.read", f"dataset/{name}", "dev").effect for name in "abc"]
    assert answers == [Effect.ALLOW, Effect.ALLOW, Effect.DENY]


@pytest.mark.parametrize(
    ("purpose", "reason"),
    [
        ({"request_purpose": "x"}, Reason.DENIED_BY_RULE),
        ({"request_purpose": "y"}, Reason.GRANTED),
        ({}, Reason.CONDITION_ERROR),
    ],
)
def test_where_the_first_row_decides_one_whose_condition_does_not_hold_does_not(
    bench: Workbench, purpose: dict[str, Value], reason: Reason
) -> None:
    text = re.sub(r"(?m)^e +=.*$", "e = priority(p.eft) || deny", bench.model_text)
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    rows, problems = parse_rows(
        "g, user:a, role:x, dev\np, role:x, dataset.read, dataset/a, dev, request.purpose == 'x', , deny\n"
        "p, role:x, dataset.read, dataset/a, dev, , , allow\np2, segment:s, dataset.read, segment:s, , allow\n",
        file="rows.csv",
        model=model,
    )
    assert not problems
    snapshot = compile_policy(model, bench.vocabulary, rows)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    assert ask(snapshot, "user:a", "dataset.read", "dataset/a", "dev", **purpose).reason is reason


def variant(bench: Workbench, matcher: str, rows: str) -> Snapshot:
    text = re.sub(r"(?m)^m +=.*$", lambda _: f"m = {matcher}", bench.model_text).replace(
        "when, then", "when, more, then"
    )
    model, found = parse_model(text, file="model.conf")
    assert model is not None, [str(item) for item in found]
    read, problems = parse_rows(
        rows + "p2, segment:s, dataset.read, segment:s, , allow\n", file="rows.csv", model=model
    )
    assert not problems, [str(item) for item in problems]
    snapshot = compile_policy(model, bench.vocabulary, read)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    return snapshot


ASKED = ("user:a", "dataset.read", "dataset/a", "dev")


def test_a_rule_holds_only_if_all_its_conditions_do(bench: Workbench) -> None:
    matcher = "g(r.sub, p.role, r.env) && resourceMatch(r.obj, p.obj) && when(p.when) && when(p.more)"
    rows = "g, user:a, role:x, dev\np, role:x, *, dataset/a, dev, request.purpose == 'x', resource.signature_verified, , allow\n"
    snapshot = variant(bench, matcher, rows)
    assert ask(snapshot, *ASKED, request_purpose="x").reason is Reason.CONDITION_ERROR
    assert ask(snapshot, *ASKED, request_purpose="y").reason is Reason.NO_GRANT
    assert ask(snapshot, *ASKED, request_purpose="x", resource_signature_verified=False).reason is Reason.NO_GRANT
    assert ask(snapshot, *ASKED, request_purpose="x", resource_signature_verified=True).reason is Reason.GRANTED


def test_groups_count_wherever_a_role_is_asked_for(bench: Workbench) -> None:
    matcher = "!(g(r.sub, p.role, r.env)) && resourceMatch(r.obj, p.obj) && when(p.when) && when(p.more)"
    snapshot = variant(bench, matcher, "g, group:g, role:x, dev\np, role:x, *, dataset/a, dev, , , , allow\n")
    assert ask(snapshot, *ASKED).effect is Effect.ALLOW
    assert ask(snapshot, *ASKED, groups=("group:g",)).effect is Effect.DENY


def test_whoever_reads_the_clock_last_or_first_the_answer_says_so(bench: Workbench) -> None:
    clock, other = "now > timestamp('1970-01-01T00:00:00Z')", "request.purpose == 'x'"
    matcher = "g(r.sub, p.role, r.env) && resourceMatch(r.obj, p.obj) && when(p.when) && when(p.more)"
    for first, then in ((clock, other), (other, clock)):
        rows = "".join(
            f"p, role:x, *, {name}, dev, {text}, , , allow\n"
            for name, text in (("dataset/a", first), ("dataset/*", then))
        )
        rows = f"g, user:a, role:x, dev\n{rows}"
        assert ask(variant(bench, matcher, rows), *ASKED, now_ms=5, request_purpose="x").reads_now is True
        within = rows.replace(f"{first}, , ,", f", {first}, ,").replace(f"{then}, , ,", f", {then}, ,")
        assert within != rows
        assert ask(variant(bench, matcher, within), *ASKED, now_ms=5, request_purpose="x").reads_now is True
