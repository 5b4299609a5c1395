"""The models of Casbin's documentation, each as a file of ours: what we answer, and that pycasbin answers the same.

A file in `casbin_examples/` holds a model, rows and questions; the last word of a question is our answer, and a D-number
behind it says that pycasbin answers otherwise, and why (CASBIN.md section 2). A model that we refuse names the codes and
the entry. `projected` models are shown to pycasbin through the bridge, since it cannot be given their roles as they are.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import casbin
import pytest
import yaml
from casbin.persist.adapters.string_adapter import StringAdapter

from pdp.adapters.casbin_bridge import Oracle
from pdp.casbin_compat import Enforcer
from pdp.engine import reference
from pdp.engine.casbin_lint import lint_files
from pdp.engine.casbin_text import Model, Row, parse_model, parse_rows
from pdp.engine.casbin_traps import Answer
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import evaluate
from pdp.engine.findings import Finding, errors
from pdp.engine.pack import Pack, load_pack
from pdp.engine.question import EngineRequest
from pdp.model.decision import Effect
from pdp.model.vocabulary import Vocabulary
from pdp.service.casbin_import import import_policy

NO_WORDS = Vocabulary(types={}, attributes={})
NOW_MS = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
FILES = sorted(Path(__file__).parent.glob("casbin_examples/*.yaml"))
ENTRIES = (Path(__file__).parents[2] / "docs" / "casbin.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question of an example: the set it goes to, its values, our answer, and the entry if pycasbin's is another."""

    context: str
    values: tuple[Any, ...]
    allowed: bool
    entry: str

    @property
    def request(self) -> EngineRequest:
        return EngineRequest(context=self.context, values=self.values, memberships={}, attributes={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a file says."""

    model: str
    policy: str
    questions: tuple[Asked, ...]
    refused: frozenset[str]
    entry: str
    served: bool
    projected: bool

    def parsed(self) -> tuple[Model, tuple[Row, ...]]:
        model, found = parse_model(self.model, file="model.conf", served=self.served)
        assert model is not None, [str(item) for item in found]
        rows, found = parse_rows(self.policy, file="policy.csv", model=model)
        assert not errors(found), [str(item) for item in found]
        return model, rows

    def findings(self) -> tuple[Finding, ...]:
        model, found = parse_model(self.model, file="model.conf", served=self.served)
        if model is None:
            return found
        rows, found = parse_rows(self.policy, file="policy.csv", model=model)
        result = found or compile_policy(model, NO_WORDS, rows)
        return () if isinstance(result, Snapshot) else result


def read(path: Path) -> Example:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert raw.keys() <= {"about", "model", "policy", "ask", "ask2", "refused", "entry", "served", "projected"}
    questions = []
    for context in ("", "2"):
        for line in raw.get(f"ask{context}", ()):
            entry = line.pop() if str(line[-1]).startswith("D-") else ""
            *values, answer = line
            assert answer in {"allow", "deny"}, line
            questions.append(Asked(context=context, values=tuple(values), allowed=answer == "allow", entry=entry))
    return Example(
        model=raw["model"],
        policy=raw["policy"],
        questions=tuple(questions),
        refused=frozenset(raw.get("refused", ())),
        entry=raw.get("entry", ""),
        served=raw.get("served", True),
        projected=raw.get("projected", False),
    )


EXAMPLES = {path.stem: read(path) for path in FILES}
DECIDED = [pytest.param(example, id=name) for name, example in EXAMPLES.items() if not example.refused]
REFUSED = [pytest.param(example, id=name) for name, example in EXAMPLES.items() if example.refused]


@pytest.mark.parametrize("example", DECIDED)
def test_an_example_is_answered_as_it_says(example: Example) -> None:
    model, rows = example.parsed()
    snapshot = compile_policy(model, NO_WORDS, rows)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    for asked in example.questions:
        outcome = evaluate(snapshot, asked.request, NOW_MS)
        assert (outcome.effect is Effect.ALLOW) is asked.allowed, (asked, outcome)
        assert reference.evaluate(model, NO_WORDS, rows, asked.request, NOW_MS) == (outcome.effect, outcome.reason)


@pytest.mark.parametrize("example", DECIDED)
def test_pycasbin_answers_the_same_unless_an_entry_says_why_not(example: Example) -> None:
    ask = projected(example) if example.projected else plain(example)
    for asked in example.questions:
        assert (ask(asked) is asked.allowed) is (not asked.entry), asked


@pytest.mark.parametrize("example", [each for each in DECIDED if EXAMPLES[str(each.id)].served])
def test_an_application_that_changes_its_import_gets_the_same_answers(example: Example) -> None:
    enforcer = Enforcer(example.model, example.policy, now_ms=lambda: NOW_MS)
    for asked in example.questions:
        context = (enforcer.new_enforce_context("2"),) if asked.context else ()
        assert enforcer.enforce(*context, *asked.values) is asked.allowed, asked
        assert enforcer.enforce_ex(*context, *asked.values)[0] is asked.allowed


@pytest.mark.parametrize("example", [each for each in DECIDED if EXAMPLES[str(each.id)].served])
def test_an_example_is_imported_as_a_pack_that_answers_the_same(example: Example) -> None:
    _, rows = example.parsed()
    made = import_policy(example.model, rows)
    assert not made.refused
    pack = load_pack(made.files)
    assert isinstance(pack, Pack), [str(item) for item in pack]
    for asked in example.questions:
        assert (evaluate(pack.snapshot, asked.request, NOW_MS).effect is Effect.ALLOW) is asked.allowed


@pytest.mark.parametrize(("name", "example"), EXAMPLES.items(), ids=EXAMPLES)
def test_lint_refuses_what_we_refuse_and_names_each_entry(name: str, example: Example) -> None:
    report = lint_files(
        example.model.encode(), example.policy.encode(), model_file="model.conf", policy_file="policy.csv"
    )
    refused = {trap.code for trap in report.traps if trap.answer is Answer.REFUSED}
    assert bool(refused) is bool(example.refused or not example.served), (name, [str(trap) for trap in report.traps])
    assert refused >= example.refused
    # What is outside the language (PC202) has no number: pycasbin has it, or an application brings it.
    numbered = {trap.divergence for trap in report.traps if trap.code != "PC202"}
    assert not example.refused or "PC202" in refused or example.entry in numbered, report.traps


@pytest.mark.parametrize("example", REFUSED)
def test_what_is_refused_is_refused_with_a_code_and_an_entry(example: Example) -> None:
    assert example.refused == {item.code for item in errors(example.findings())}, example.findings()
    assert f"### {example.entry} " in ENTRIES


def test_every_example_has_both_answers_where_both_can_be() -> None:
    for name, example in EXAMPLES.items():
        answers = {asked.allowed for asked in example.questions}
        assert example.refused or answers == {True, False} or name == "priority_named_otherwise", name
        assert all(f"### {asked.entry} " in ENTRIES for asked in example.questions if asked.entry), name


def plain(example: Example) -> Any:
    """Return pycasbin as an application has it, with the functions that `[role_matching]` names registered in code."""
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=example.model))
    model, _ = example.parsed()
    for section, role in model.roles.items():
        if role.matches:
            enforcer.add_named_matching_func(section, function(role.matches))
        if role.domain_matches:
            enforcer.add_named_domain_matching_func(section, function(role.domain_matches))
    enforcer.set_adapter(StringAdapter(example.policy))
    enforcer.load_policy()

    def ask(asked: Asked) -> bool | None:
        context = (enforcer.new_enforce_context("2"),) if asked.context else ()
        try:
            return bool(enforcer.enforce(*context, *asked.values))
        except Exception:  # noqa: BLE001 - foreign code: that it raised is its answer
            return None

    return ask


def function(name: str) -> Any:
    return getattr(casbin.util, name.replace("M", "_m").lower() + "_func")


def projected(example: Example) -> Any:
    model, rows = example.parsed()
    oracle = Oracle(model_text=example.model, model=model, vocabulary=NO_WORDS, rows=rows, now_ms=NOW_MS)
    return lambda asked: oracle.ask(asked.request).allowed
