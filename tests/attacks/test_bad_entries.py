"""Whoever writes to a PDP's store puts bad entries there: refused, counted, told by health and `pdp doctor`; the world stays."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pdp.cli.main import run
from pdp.limits import MAX_ENTRY_BYTES
from pdp.server.stores import WORLD_FILE
from pdp.trust.columns import pack_signatures, unpack_signatures
from pdp.trust.entry import Head, SignedEntry
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.logs import Authority, lock_payload
from tests.support.pdp import ADA, BOB, RunningPdp, running_pdp
from tests.support.waiting import until

ASSETS = "dataset/open: {environment: dev}\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)


def own(pdp: RunningPdp) -> Authority:
    """Return an authority that signs with this PDP's own keys: whatever it makes is refused for another reason."""
    keys = pdp.app.basis.keys
    return Authority(publish=keys.publish, timestamp=keys.timestamp)


def honest(pdp: RunningPdp, head: Head) -> SignedEntry:
    return own(pdp).entry(head, payload=lock_payload(90), time_ms=pdp.app.clock.now_ms())


Attack = Callable[[RunningPdp, Head], tuple[int, SignedEntry]]


def forged(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    return head.seq + 1, Authority().entry(head, payload=lock_payload(91), time_ms=pdp.app.clock.now_ms())


def reordered(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    return head.seq + 1, honest(pdp, Head(seq=head.seq + 1, digest=b"\x01" * 32))


def repeated(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    return head.seq + 1, stored(pdp, head.seq)


def truncated(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    entry = honest(pdp, head)
    return head.seq + 1, replace(entry, payload=entry.payload[:-1])


def beheaded(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    entry = honest(pdp, head)
    return head.seq + 1, replace(entry, header=entry.header[:20])


def oversized(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    return head.seq + 1, replace(honest(pdp, head), payload=b"x" * (MAX_ENTRY_BYTES + 1))


def alien(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    other = replace(own(pdp), tenant="other")
    return head.seq + 1, other.entry(head, payload=lock_payload(92), time_ms=pdp.app.clock.now_ms())


def garbage(_pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    return head.seq + 1, SignedEntry(header=b"\xff\x00", payload=b"\x00", signatures=())


def poison(pdp: RunningPdp, head: Head) -> tuple[int, SignedEntry]:
    entry = own(pdp).entry(head, payload={"id": 7}, time_ms=pdp.app.clock.now_ms())
    return head.seq + 1, entry


ATTACKS: Sequence[Attack] = (
    forged, reordered, truncated, beheaded, oversized, alien, garbage, poison, repeated,
)  # fmt: skip


def store(pdp: RunningPdp) -> sqlite3.Connection:
    return sqlite3.connect(pdp.directory / "state" / WORLD_FILE, isolation_level=None, timeout=10)


def stored(pdp: RunningPdp, seq: int) -> SignedEntry:
    with closing(store(pdp)) as log:
        row = log.execute("SELECT header, payload, signatures FROM entries WHERE seq = ?", (seq,)).fetchone()
    return SignedEntry(header=row[0], payload=row[1], signatures=unpack_signatures(row[2]))


def written(pdp: RunningPdp, seq: int, entry: SignedEntry) -> None:
    row = (seq, entry.header, entry.payload, pack_signatures(entry.signatures))
    with closing(store(pdp)) as log:
        log.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)


def removed(pdp: RunningPdp, seq: int) -> None:
    with closing(store(pdp)) as log:
        log.execute("DELETE FROM entries WHERE seq >= ?", (seq,))


@pytest.mark.holds("P7", "V1", "V2", "V3", "V4", "adv_malformed_peer")
def test_no_bad_entry_in_the_store_moves_the_world_and_each_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp, httpx.AsyncClient(base_url=pdp.probes) as probes:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            token = tmp_path / "ada.token"
            token.write_text(pdp.token(ADA))
            await pdp.app.replication.publisher.publish("lock", lock_payload(1), author="user:ada")
            head = pdp.app.replica.head
            for attack in ATTACKS:
                before = pdp.app.health.refused
                seq, entry = attack(pdp, head)
                written(pdp, seq, entry)
                await until(lambda known=before: pdp.app.health.refused > known)  # type: ignore[misc]
                assert pdp.app.replica.head == head, attack
                page = (await probes.get("/readyz")).json()
                assert page["refused"] > before, attack
                assert page["last_error"], attack
                assert (await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=10)).decision.effect == 1
                removed(pdp, seq)
            assert "pdp_log_refused 0.0" not in (await probes.get("/metrics")).text
            doctor = ("doctor", "--server", str(pdp.address), "--token-file", str(token), "--probes", pdp.probes)
            await asyncio.to_thread(run, doctor)
            assert "of what the log carried" in capsys.readouterr().out
            async with asyncio.timeout(20):
                while pdp.app.replica.last_error:  # noqa: ASYNC110 - a heartbeat clears it
                    await asyncio.sleep(0.05)
            seq = await pdp.app.replication.publisher.publish("lock", lock_payload(2), author="user:ada")
            assert seq == head.seq + 1  # the log goes on as if nothing had been there

    asyncio.run(work())
