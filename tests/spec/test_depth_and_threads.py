"""Role graphs as deep as they may be, and many threads on one policy: what pycasbin gets wrong (D-39, D-46, D-48)."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from pdp.casbin_compat import Enforcer
from pdp.engine import reference
from pdp.engine.casbin_text import Row, parse_model
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import evaluate
from pdp.limits import MAX_ROLE_DEPTH
from tests.spec.generators.models import NO_WORDS, world
from tests.spec.laws import asked, compiled
from tests.spec.profiles import DEEP
from tests.unit.casbin_compat.families import BOTH, ROLE, model

TEXT = model(ROLE, policy="sub, obj, act, eft", effect=BOTH, roles="g = _, _")


def deep_rows(rng: Random) -> tuple[Row, ...]:
    """Return a chain as deep as is allowed, with side branches that join it, and rows at random heights of it."""
    chain = [(f"r{level}", f"r{level + 1}") for level in range(MAX_ROLE_DEPTH - 1)]
    side = [(f"u{number}", f"r{rng.randrange(MAX_ROLE_DEPTH)}") for number in range(10)]
    rows = [Row("g", link, "deep.csv", line) for line, link in enumerate([("u", "r0"), *chain, *side], start=1)]
    for line in range(1, 9):
        fields = (f"r{rng.randrange(MAX_ROLE_DEPTH)}", rng.choice(("a", "b")), "read", rng.choice(("allow", "deny")))
        rows.append(Row("p", fields, "p.csv", line))
    rng.shuffle(rows)
    return tuple(rows)


def test_roles_as_deep_as_they_may_be_count_for_allows_and_denies() -> None:
    parsed, found = parse_model(TEXT, file="model.conf")
    assert parsed is not None, found
    for seed in range(20 if DEEP else 1):
        rows = deep_rows(Random(seed))  # noqa: S311 - worlds, not keys
        snapshot = compile_policy(parsed, NO_WORDS, rows)
        assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
        for name in ("u", *(f"u{number}" for number in range(0, 10, 4)), "nobody"):
            for what in ("a", "b"):
                question = asked((name, what, "read"))
                outcome = evaluate(snapshot, question, 0)
                assert (outcome.effect, outcome.reason) == reference.evaluate(parsed, NO_WORDS, rows, question, 0)


@contextmanager
def threads_that_switch_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(*works: object) -> list[BaseException]:
    failed: list[BaseException] = []

    def run(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - told by the test that waits
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_threads_on_one_policy_each_get_the_answer_of_one() -> None:
    with threads_that_switch_all_the_time():
        for seed in range(100 if DEEP else 8):
            case = world(seed)
            snapshot = compiled(case)
            alone = [evaluate(snapshot, question, 0) for question in case.questions]

            def ask(snapshot: Snapshot = snapshot, case: object = case, alone: object = alone) -> None:
                for _ in range(5):
                    assert [evaluate(snapshot, question, 0) for question in case.questions] == alone  # type: ignore[attr-defined]

            assert together(*[ask] * 6) == []


@pytest.mark.parametrize("rounds", [60])
def test_nobody_is_allowed_by_a_mixture_of_two_policies(rounds: int) -> None:
    """D-46: a role moves between one that denies and one that has nothing; neither world ever allows."""
    enforcer = Enforcer(
        TEXT, "p, closed, a, read, allow\np, closed, a, read, deny\np, other, b, read, allow\ng, ana, closed\n"
    )
    done = threading.Event()

    def change() -> None:
        for _ in range(rounds):
            enforcer.add_role_for_user("ana", "nothing")
            enforcer.delete_role_for_user("ana", "closed")
            enforcer.add_role_for_user("ana", "closed")
            enforcer.delete_role_for_user("ana", "nothing")
        done.set()

    def ask() -> None:
        while not done.is_set():
            assert enforcer.enforce("ana", "a", "read") is False
            assert enforcer.enforce("ana", "b", "read") is False

    with threads_that_switch_all_the_time():
        assert together(change, ask, ask, ask) == []
