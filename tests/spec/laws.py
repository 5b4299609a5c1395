"""The laws of CASBIN.md section 5, each a function of one world of any model: it returns, or an assertion fails."""

import re
from collections.abc import Callable, Iterable
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import casbin

from pdp.casbin_compat import Enforcer
from pdp.engine import reference
from pdp.engine.casbin_text import EffectRule, Row, parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.delta import apply_delta
from pdp.engine.evaluate import Outcome, evaluate
from pdp.engine.explain import nearest_miss
from pdp.engine.expression import Expression, parse, walk
from pdp.engine.expression_text import printed
from pdp.engine.question import EngineRequest
from pdp.errors import Reason
from pdp.model.decision import Effect
from tests.spec.generators.models import NO_WORDS, CasbinWorld

Law = Callable[[CasbinWorld], object]


def compiled(world: CasbinWorld, rows: tuple[Row, ...] | None = None) -> Snapshot:
    snapshot = compile_policy(world.model, NO_WORDS, world.rows if rows is None else rows)
    assert isinstance(snapshot, Snapshot), (world.text, world.csv, [str(found) for found in snapshot])
    return snapshot


def answers(world: CasbinWorld, rows: tuple[Row, ...] | None = None) -> list[Outcome]:
    snapshot = compiled(world, rows)
    return [evaluate(snapshot, question, world.now_ms) for question in world.questions]


def as_the_reference(world: CasbinWorld) -> None:
    for question, outcome in zip(world.questions, answers(world), strict=True):
        expected = reference.evaluate(world.model, NO_WORDS, world.rows, question, world.now_ms)
        assert (outcome.effect, outcome.reason) == expected, (world.text, world.csv, question.values, outcome)


class _Rows(casbin.persist.Adapter):
    """Hands rows to pycasbin past its CSV reader, which takes quotes and commas for something else (D-12)."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def load_policy(self, model: Any) -> None:
        for row in self._rows:
            model.model[row.section[0]][row.section].policy.append(list(row.fields))


def as_pycasbin(world: CasbinWorld) -> int:
    """Compare every answer to a complete question but those about a role's name (D-44); return how many were."""
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=world.text), _Rows(world.rows))
    count = 0
    for question, outcome in zip(world.questions, answers(world), strict=True):
        if not world.complete(question) or outcome.reason is Reason.SUBJECT_IS_ROLE:
            continue
        assert outcome.reason is not Reason.CONDITION_ERROR, (world.text, world.csv, question.values)
        theirs = enforcer.enforce(*question.values)
        assert theirs is (outcome.effect is Effect.ALLOW), (world.text, world.csv, question.values, outcome)
        count += 1
    return count


def order_and_repetition_change_nothing(world: CasbinWorld) -> None:
    if world.model.contexts[""].effect.ordered:
        return
    rng = world.rng("order")
    shuffled = rng.sample(world.rows, len(world.rows))
    other = answers(world, (*shuffled, replace(rng.choice(world.rows), line=999)))
    assert [(each.effect, each.reason) for each in answers(world)] == [(each.effect, each.reason) for each in other]


def more_denies_and_fewer_allows_never_allow_more(world: CasbinWorld) -> None:
    if world.model.contexts[""].effect is EffectRule.DENY_OVERRIDE:
        return
    policies = [row for row in world.rows if row.section == "p"]
    row = world.rng("deny").choice(policies)
    changed = [(*world.rows, replace(row, fields=(*row.fields[:-1], "deny"), line=999))]
    if row.fields[-1] == "allow" and len(policies) > 1:
        changed.append(tuple(other for other in world.rows if other is not row))
    before = answers(world)
    for rows in changed:
        assert all(now.effect <= then.effect for now, then in zip(answers(world, rows), before, strict=True))


_NAMES = re.compile(r"\b(u[123]|root|nobody|r[1-4])\b")


def new_names_give_the_same_answers(world: CasbinWorld) -> None:
    """Rename every subject and role, in the model, in rows and their rules, and in questions, one to one."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return _NAMES.sub(r"x-\1", value) if isinstance(value, str) else value

    text = renamed(world.text)
    model, found = parse_model(text, file="model.conf", served=False)
    assert model is not None, found
    other = replace(
        world,
        text=text,
        model=model,
        rows=tuple(replace(row, fields=tuple(map(renamed, row.fields))) for row in world.rows),
        questions=tuple(asked(tuple(map(renamed, each.values))) for each in world.questions),
    )
    for new, old in zip(answers(other), answers(world), strict=True):
        assert (new.effect, new.reason, new.determining) == (old.effect, old.reason, old.determining)
        assert new.role_path == tuple(map(renamed, old.role_path))


def printing_and_reading_rows_gives_the_same_rows(world: CasbinWorld) -> None:
    rows, found = parse_rows(world.csv, file="policy.csv", model=world.model)
    assert not found
    assert [row.fields for row in rows] == [row.fields for row in world.rows]


def a_folded_policy_is_the_compiled_one(world: CasbinWorld) -> None:
    rng = world.rng("fold")
    rows = dict.fromkeys(world.rows)
    first = tuple(row for row in rows if row.section == "p" and rng.random() < 1 / 2) or world.rows[:1]
    start = tuple(row for row in rows if row in first or rng.random() < 1 / 2)
    gone = [row for row in start if row not in first and rng.random() < 1 / 2]
    after = tuple(row for row in rows if row not in gone)
    folded = apply_delta(compiled(world, start), [row for row in after if row not in start], gone)
    assert isinstance(folded, Snapshot)
    assert folded.digest == compiled(world, after).digest
    assert [evaluate(folded, question, world.now_ms) for question in world.questions] == answers(world, after)


def the_compatible_enforcer_answers_as_the_engine_one_by_one_and_in_a_batch(world: CasbinWorld) -> None:
    if world.model.contexts[""].effect is EffectRule.DENY_OVERRIDE:
        return  # not served (D-01), and so not offered
    enforcer = Enforcer(world.text, world.csv, now_ms=lambda: world.now_ms)
    values = [question.values for question in world.questions if all(_built_in(value) for value in question.values)]
    wanted = [
        outcome.effect is Effect.ALLOW
        for question, outcome in zip(world.questions, answers(world), strict=True)
        if question.values in values
    ]
    assert enforcer.batch_enforce(values) == [enforcer.enforce(*each) for each in values] == wanted


def _built_in(value: object) -> bool:
    return value is not None


def what_is_printed_of_a_matcher_is_the_matcher(world: CasbinWorld) -> None:
    texts = [parse(fields["rule"]) for fields in map(world.named, world.rows) if "rule" in fields]
    for tree in (world.model.contexts[""].matcher, *texts):
        again = parse(printed(tree))
        assert printed(again) == printed(tree)
        assert [_bare(node) for node in walk(again)] == [_bare(node) for node in walk(tree)]


def _bare(node: Expression) -> tuple[object, ...]:
    """Return what a node is, without its place and what is below it."""
    inner = {"at", "operands", "operand", "left", "right", "items", "arguments", "source"}
    return type(node), *(getattr(node, field.name) for field in dataclass_fields(node) if field.name not in inner)


def a_denial_is_explained_by_a_rule_that_does_not_hold(world: CasbinWorld) -> None:
    """The nearest miss is an allow row that fails what the sentence says, or a deny row where one decided."""
    by_id = {row.id: row for row in world.rows}
    snapshot = compiled(world)
    for question, outcome in zip(world.questions, answers(world), strict=True):
        miss = nearest_miss(snapshot, question, world.now_ms)
        if outcome.reason is Reason.DENIED_BY_RULE:
            assert miss is not None
        if miss is not None and outcome.effect is Effect.DENY:
            effect = by_id[miss.rule].fields[-1]
            assert (miss.failed == "deny") is (effect == "deny")
            assert miss.failed != "deny" or miss.rule in outcome.determining
            assert effect == "deny" or miss.rule not in outcome.determining or outcome.reason is Reason.CONDITION_ERROR


def asked(values: tuple[Any, ...]) -> EngineRequest:
    return EngineRequest(context="", values=values, memberships={}, attributes={})


LAWS: tuple[Law, ...] = (
    as_the_reference,
    as_pycasbin,
    order_and_repetition_change_nothing,
    more_denies_and_fewer_allows_never_allow_more,
    new_names_give_the_same_answers,
    printing_and_reading_rows_gives_the_same_rows,
    a_folded_policy_is_the_compiled_one,
    the_compatible_enforcer_answers_as_the_engine_one_by_one_and_in_a_batch,
    what_is_printed_of_a_matcher_is_the_matcher,
    a_denial_is_explained_by_a_rule_that_does_not_hold,
)
