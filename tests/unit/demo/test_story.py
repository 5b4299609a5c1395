"""The story as data: complete, readable, and shown as it went."""

import io

from rich.console import Console

from pdp.demo.run import summary
from pdp.demo.screen import Screen, story_table, verdict
from pdp.demo.story import PEOPLE, STORY, WORKLOADS, CutStream, Infer, Outcome, Read, Told, VerifyAudit

NARROW = 100


def told_as_promised() -> list[Told]:
    return [Told(step=step, outcome=Outcome(actual=step.expected)) for step in STORY]


def shown(told: list[Told], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(story_table(told, details=False))
    console.print(verdict(told))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_five_people_take_part() -> None:
    assert len(PEOPLE) == 5
    assert {step.who.partition(",")[0] for step in STORY} == {person.name for person in PEOPLE} | {"nobody"}


def test_every_refusal_that_a_newcomer_must_see_is_told() -> None:
    expected = {step.expected for step in STORY}
    assert expected >= {
        "200 true digit",
        "401 credential_missing",
        "401 token_expired",
        "403 no_grant",
        "403 segment_denied",
        "403 asset_unregistered",
        "403 locked",
    }
    assert {type(step.act) for step in STORY} >= {Infer, Read, CutStream, VerifyAudit}


def test_workloads_are_of_the_demo_trust_domain() -> None:
    assert all(workload.spiffe_id.startswith("spiffe://demo.portcullis/ns/") for workload in WORKLOADS)


def test_a_step_is_as_promised_only_if_the_answer_is_the_same() -> None:
    step = STORY[0]
    assert Told(step=step, outcome=Outcome(actual=step.expected, detail="whatever")).as_promised
    assert not Told(step=step, outcome=Outcome(actual=step.expected + "s")).as_promised
    assert not Told(step=step, outcome=Outcome(actual="")).as_promised


def test_the_table_has_one_line_per_step_on_an_ordinary_terminal() -> None:
    lines = shown(told_as_promised(), NARROW).splitlines()
    assert len(lines) == 1 + len(STORY) + 1
    assert lines[-1] == f"all {len(STORY)} steps as promised"


def test_a_deviation_is_marked_and_counted() -> None:
    told = told_as_promised()
    told[3] = Told(step=STORY[3], outcome=Outcome(actual="200 true digit"))
    text = shown(told, NARROW)
    assert text.count("✘") == 1
    assert f"1 of {len(STORY)} steps did not go as promised" in text


def test_what_was_measured_is_told_on_every_screen() -> None:
    told = told_as_promised()
    told[0] = Told(step=STORY[0], outcome=Outcome(actual=STORY[0].expected, measured="cut 9 ms after the lock"))
    assert "cut 9 ms after the lock\n" in shown(told, NARROW)


def test_the_summary_for_programs_says_the_same() -> None:
    told = told_as_promised()
    assert summary(told)["as_promised"] is True
    told[0] = Told(step=STORY[0], outcome=Outcome(actual="403 no_grant"))
    assert summary(told)["as_promised"] is False


def test_nothing_moves_and_nothing_is_coloured_where_no_terminal_is() -> None:
    file = io.StringIO()
    screen = Screen(console=Console(file=file, width=NARROW, highlight=False))
    with screen.progress("starting"):
        pass
    with screen.telling() as telling:
        for one in told_as_promised():
            telling.current = one.step
            telling.told.append(one)
        telling.current = None
    assert "\x1b" not in file.getvalue()
    assert file.getvalue().count(STORY[0].name) == 1
