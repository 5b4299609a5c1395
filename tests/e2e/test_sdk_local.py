"""Local mode against a real PDP: the same answers as by the network, the same records, and no network for deciding."""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import ConfigError, Reason
from pdp.sdk import (
    AccessDenied,
    AccessEnded,
    Asserted,
    AsyncClient,
    AsyncLocalClient,
    BadQuestion,
    Bearer,
    Client,
    ClientUnusable,
    CredentialRefused,
    Dpop,
    LocalClient,
    NotPermitted,
    Question,
)
from pdp.sdk.admin import AdminClient, Canary, LockTarget, Mode
from tests.support.pdp import BOB, EVE, GATE
from tests.support.pdp_thread import ThreadedPdp, threaded_pdp

SALES = ("dataset.read", "dataset/sales")
WAGES = ("dataset.read", "dataset/wages")


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedPdp]:
    with threaded_pdp(tmp_path_factory.mktemp("pdp")) as running:
        yield running


@contextmanager
def local(pdp: ThreadedPdp, state: Path, sub: str = BOB, **options: Any) -> Iterator[LocalClient]:
    given = {"root_digest": pdp.root_digest, "trust": pdp.trust, "token": pdp.token(sub), "state_dir": state}
    with LocalClient(pdp.server, **given | options) as client:
        reached(client, pdp.world_seq)
        yield client


def reached(client: LocalClient, seq: int) -> None:
    while client.world_seq < seq:
        threading.Event().wait(0.01)


def meaning(decision: Any) -> tuple[Any, ...]:
    return (
        decision.effect,
        decision.reason,
        decision.world_seq,
        decision.obligations,
        decision.determining,
        decision.role_path,
        decision.nearest_miss,
        decision.detail,
    )


def test_p3_the_same_answers_as_by_the_network(pdp: ThreadedPdp, tmp_path: Path) -> None:
    questions = [
        Question(action=SALES[0], resource=SALES[1]),
        Question(action=WAGES[0], resource=WAGES[1]),
        Question(action="dataset.write", resource="dataset/nowhere"),
        Question(action="dataset.fly", resource="dataset/sales"),
        Question(action="model.download", resource="model/fraud"),
        Question(action="model.download", resource="model/fraud@7"),
        Question(action=SALES[0], resource=SALES[1], attributes={"request.purpose": "training"}),
        Question(action=SALES[0], resource=SALES[1], subject=f"user:{BOB}"),
        Question(action=SALES[0], resource=SALES[1], subject=Asserted(principal="user:x", groups=["group:y"])),
        Question(action=SALES[0], resource=SALES[1], subject=Bearer(pdp.token(BOB))),
        Question(action=SALES[0], resource=SALES[1], subject=Bearer("not.a.token")),
        Question(action=SALES[0], resource=SALES[1], workload="workload:spiffe://demo.portcullis/job"),
        Question(action=SALES[0], resource=SALES[1], supports=None),
    ]
    token = pdp.token(GATE)
    with Client(pdp.server, token=token, cache_s=0) as client, local(pdp, tmp_path, token=token) as mine:
        assert list(map(meaning, mine.check_many(questions))) == list(map(meaning, client.check_many(questions)))
        for question in questions:
            circumstances = {
                name: getattr(question, name) for name in ("subject", "workload", "attributes", "supports")
            }
            asked = (question.action, question.resource)
            assert meaning(mine.check(*asked, **circumstances)) == meaning(client.check(*asked, **circumstances))
            assert meaning(mine.explain(*asked, **circumstances)) == meaning(client.explain(*asked, **circumstances))


def test_p3_the_same_lists_as_by_the_network(pdp: ThreadedPdp, tmp_path: Path) -> None:
    follower = pdp.token(GATE)
    with local(pdp, tmp_path, token=follower) as mine:
        with pytest.raises(NotPermitted, match=r"policy\.read"):
            mine.who_can(*SALES)
        with Client(pdp.server, token=follower) as theirs:
            assert mine.what_can() == theirs.what_can()
            assert mine.what_can(f"user:{BOB}") == theirs.what_can(f"user:{BOB}")
            assert mine.actions("dataset/sales", f"user:{BOB}") == theirs.actions("dataset/sales", f"user:{BOB}")


def test_the_same_errors_as_by_the_network(pdp: ThreadedPdp, tmp_path: Path) -> None:
    token = pdp.token(BOB)
    with Client(pdp.server, token=token, cache_s=0) as client, local(pdp, tmp_path, token=token) as mine:
        for one in (client, mine):
            with pytest.raises(NotPermitted):
                one.check(*SALES, subject="user:somebody")
            with pytest.raises(NotPermitted):
                one.check(*SALES, workload="workload:spiffe://elsewhere/x")
            with pytest.raises(BadQuestion):
                one.check("nonsense", "dataset/sales")
            with pytest.raises(BadQuestion):
                one.check(*SALES, attributes={"request.purpose": 1})
            with pytest.raises(BadQuestion):
                one.check(*SALES, attributes={"subject.groups": "group:root"})
            with pytest.raises(AccessDenied):
                one.require(*WAGES)


def test_local_mode_takes_no_proof_that_somebody_else_may_have_taken(pdp: ThreadedPdp, tmp_path: Path) -> None:
    proved = Dpop(token=pdp.token(BOB), proof="a.b.c", method="POST", url="https://models.example/")
    with local(pdp, tmp_path, token=pdp.token(GATE)) as mine, pytest.raises(BadQuestion, match="ask a PDP"):
        mine.check(*SALES, subject=proved)


def test_an_allow_is_durable_before_it_is_told_and_the_same_one_is_recorded_once(
    pdp: ThreadedPdp, tmp_path: Path
) -> None:
    with local(pdp, tmp_path) as client:
        ids = {client.check(*SALES).decision_id for _ in range(5)}
        denied = {client.check(*WAGES).decision_id for _ in range(2)}
    assert len(ids) == 1
    assert len(denied) == 2, "each refused attempt leaves its own record"
    shipped = [json.loads(record) for record in pdp.records()]
    found = {entry["decision_id"]: entry for entry in shipped if entry.get("door") == "sdk"}
    assert ids | denied <= set(found)
    (allow,) = ids
    assert found[allow]["caller"] == f"user:{BOB}"


def test_a_lock_reaches_local_mode_and_ends_its_leases(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with pdp.admin() as admin, local(pdp, tmp_path) as client:
        assert client.check(*SALES).allowed
        watch = client.watch(*SALES)
        assert next(watch).allowed
        with client.lease(*SALES) as lease:
            lease.check()
            locked = admin.lock(LockTarget.parse("resource:dataset/sales"), reason="leak", wait_all=True)
            assert client.check(*SALES).reason is Reason.LOCKED
            assert client.world_seq >= locked.receipt.world_seq
            assert next(watch).reason is Reason.LOCKED
            with pytest.raises(AccessEnded, match="locked"):
                list(lease.iterate(iter(lambda: threading.Event().wait(0.005), "never")))
        admin.unlock(locked.lock.id)
        assert next(watch).allowed


def test_a_canary_answers_in_local_mode_and_is_counted_at_its_pdp(pdp: ThreadedPdp, tmp_path: Path) -> None:
    row = "p, role:data-scientist, dataset.read, dataset/sales, *, , , deny"
    with pdp.admin() as admin, local(pdp, tmp_path) as mine:
        proposal_id = admin.edit(add=[row], activate=False).proposal_id
        reached(mine, admin.start_trial(proposal_id, duration_s=600, canary=Canary(share=100, max_loses=100)))
        (trial,) = admin.trials()
        tried = mine.check(*SALES)
        assert (tried.reason, tried.candidate) == (Reason.DENIED_BY_RULE, trial.revision)
        tally = trial.tally
        while tally is None or not tally.loses:  # its record is on its way
            threading.Event().wait(0.02)
            (tally,) = (one.tally for one in admin.trials())
        reached(mine, admin.end_trial(proposal_id, Mode.CANARY))
        after = mine.check(*SALES)
        assert (after.allowed, after.candidate) == (True, "")
        admin.reject(proposal_id)


def test_a_lock_on_ourselves_is_a_refused_credential(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with pdp.admin() as admin, local(pdp, tmp_path) as client:
        assert client.check(*SALES).allowed
        locked = admin.lock(LockTarget.parse(f"user:{BOB}"), reason="laptop stolen")
        while client.world_seq < locked.receipt.world_seq:
            threading.Event().wait(0.01)
        with pytest.raises(CredentialRefused) as refused:
            client.check(*SALES)
        assert refused.value.reason is Reason.LOCKED
        admin.unlock(locked.lock.id)


def test_an_expired_credential_is_refused_and_a_rotated_file_serves(pdp: ThreadedPdp, tmp_path: Path) -> None:
    tokens = [pdp.token(BOB)]
    with local(pdp, tmp_path / "state", token=lambda: tokens[-1]) as client:
        assert client.check(*SALES).allowed
        tokens.append(pdp.token(BOB, now_s=int(time.time()) - 3600))
        with pytest.raises(CredentialRefused):
            client.check(*SALES)
        tokens.append(pdp.token(BOB))
        assert client.check(*SALES).allowed


def test_asyncio_has_the_same_calls_and_answers(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with pdp.admin() as admin, local(pdp, tmp_path) as client:
        asyncio.run(_use(AsyncLocalClient(client), admin))
    with pytest.raises(ClientUnusable):
        client.check(*SALES)


async def _use(client: AsyncLocalClient, admin: AdminClient) -> None:
    async with client:
        first = await client.check(*SALES)
        again = await asyncio.gather(*(client.check(*SALES) for _ in range(50)))
        assert {answer.decision_id for answer in again} == {first.decision_id}
        with pytest.raises(AccessDenied):
            await client.require(*WAGES)
        assert [answer.allowed for answer in await client.check_many([SALES, WAGES])] == [True, False]
        assert (await client.explain(*WAGES)).reason is Reason.SEGMENT_DENIED
        assert "dataset/sales" in {entry.resource for entry in (await client.what_can()).entries}
        assert (await client.actions("dataset/sales")).world_seq == client.world_seq
        with pytest.raises(NotPermitted):
            await client.who_can(*SALES)
        with pytest.raises(AccessEnded, match="locked"):
            await _hold(client, admin)


async def _hold(client: AsyncLocalClient, admin: AdminClient) -> None:
    async with client.lease(*SALES):
        locked = await asyncio.to_thread(admin.lock, LockTarget.parse("resource:dataset/sales"), reason="leak")
        try:
            await asyncio.Event().wait()
        finally:
            admin.unlock(locked.lock.id)


def test_the_asyncio_twin_has_the_calls_of_the_remote_one() -> None:
    named = {name for name in vars(AsyncClient) if not name.startswith("_")}
    assert named <= set(vars(AsyncLocalClient))
    for name in named - {"world_seq", "one_identity"}:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (AsyncLocalClient, AsyncClient))
        assert ours.parameters == theirs.parameters


def test_who_may_not_subscribe_has_no_local_mode(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match=r"replica\.subscribe"), local(pdp, tmp_path, sub=EVE, start_timeout_s=1.0):
        pytest.fail("started")


def test_another_root_of_trust_is_refused(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digest"), local(pdp, tmp_path, root_digest="0" * 64):
        pytest.fail("started")
    with pytest.raises(ConfigError, match="64 hexadecimal"), local(pdp, tmp_path, root_digest="f00"):
        pytest.fail("started")


def test_threads_share_a_local_client_and_a_closed_one_says_so(pdp: ThreadedPdp, tmp_path: Path) -> None:
    with local(pdp, tmp_path) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: client.check(*SALES).allowed, range(200)))
    with pytest.raises(ClientUnusable, match="closed"):
        client.check(*SALES)
    with pytest.raises(ClientUnusable):
        client.watch(*SALES)
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pdp replica"]


def test_f1_local_mode_goes_on_without_its_pdp_and_starts_without_it(tmp_path: Path) -> None:
    with threaded_pdp(tmp_path / "pdp") as pdp:
        token, server, digest, trust = pdp.token(BOB), pdp.server, pdp.root_digest, pdp.trust
        given: dict[str, Any] = {"root_digest": digest, "trust": trust, "token": token, "state_dir": tmp_path / "sdk"}
        client = LocalClient(server, **given)
        assert client.check(*SALES).allowed
    with client:
        assert client.check(*SALES, supports=None).allowed
        assert client.check(*WAGES).reason is Reason.SEGMENT_DENIED
    with LocalClient(server, **given) as again:
        assert again.check(*SALES).allowed


def test_n10_local_mode_tells_no_more_than_the_pdp(pdp: ThreadedPdp, tmp_path: Path) -> None:
    token = pdp.token(BOB)
    asked = [(verb, f"dataset/{name}") for name in ("wages", "nowhere") for verb in ("dataset.write", "dataset.delete")]
    pdp.pdp.app.discretion._reveal = False
    try:
        with Client(pdp.server, token=token, cache_s=0) as client, local(pdp, tmp_path, token=token) as mine:
            # A test's tokens are those of a development issuer, whose installation would reveal every reason.
            mine._machine.trust = replace(mine._machine.trust, development=False)
            told = [mine.check(*question) for question in asked]
            assert [answer.reason for answer in told] == [Reason.NO_GRANT] * 4
            assert list(map(meaning, told)) == list(map(meaning, client.check_many(asked)))
            assert list(map(meaning, mine.check_many(asked))) == list(map(meaning, told))
            assert next(mine.watch(*asked[2])).reason is Reason.NO_GRANT
    finally:
        pdp.pdp.app.discretion._reveal = True
