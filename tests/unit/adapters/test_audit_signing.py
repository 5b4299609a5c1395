import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pdp.adapters.audit_file import AuditChain, segments
from pdp.adapters.audit_key import PUBLIC_FILE, AuditSigner, audit_signer
from pdp.adapters.audit_reader import read_segments
from pdp.adapters.audit_received import ReceivedChain
from pdp.audit.chain import START, Verdict, frame, frames, seal
from pdp.audit.checkpoint import VerifierKey
from pdp.audit.merkle import Frontier, spelled
from pdp.audit.verify import Known, verify
from pdp.errors import ConfigError
from pdp.limits import AUDIT_CHECKPOINT_RECORDS, AUDIT_CHECKPOINT_S
from pdp.service import audit as service
from pdp.service.audit import AuditTrail
from tests.support.chains import decision, signer, written
from tests.support.logs import HandClock


def opened(directory: Path, key: AuditSigner | None, clock: HandClock) -> AuditChain:
    return AuditChain.open(directory, name="pdp", who=dict, now_ms=clock.now_ms, reserve_bytes=0, signer=key)


def kinds(directory: Path) -> list[str]:
    found = [data for held in read_segments(directory).values() for _, data in held]
    return [json.loads(content)["kind"] for data in found for _, content in frames(data)]


def test_a_checkpoint_is_due_after_a_time_and_after_so_many_records(tmp_path: Path) -> None:
    clock = HandClock()
    chain = opened(tmp_path, signer(), clock)
    chain.append([decision(1)])
    clock.advance(AUDIT_CHECKPOINT_S)
    chain.append([decision(2)])
    assert kinds(tmp_path) == ["open", "decision", "checkpoint", "decision"]
    chain.append([decision(n) for n in range(AUDIT_CHECKPOINT_RECORDS)])
    chain.append([decision(3)])
    assert kinds(tmp_path)[-2:] == ["checkpoint", "decision"]
    chain.close()


def test_a_chain_signs_off_at_its_end_and_says_nothing_twice(tmp_path: Path) -> None:
    clock, key = HandClock(), signer()
    chain = opened(tmp_path, key, clock)
    chain.append([decision(1)])
    clock.advance(AUDIT_CHECKPOINT_S)
    chain.append(())
    for _ in range(3):
        clock.advance(AUDIT_CHECKPOINT_S)
        chain.append(())
    chain.close()
    assert kinds(tmp_path) == ["open", "decision", "checkpoint"]


def test_a_restart_goes_on_with_the_tree_of_all_before(tmp_path: Path) -> None:
    key = signer()
    written(tmp_path, key, segments=2)
    chain = opened(tmp_path, key, HandClock())
    chain.append([decision(1)])
    chain.close()
    (held,) = read_segments(tmp_path).values()
    report = verify(held, known=Known(keys=(key.key,)))
    assert (report.verdict, report.signed) == (Verdict.OK, report.head.n - 1)


@pytest.mark.parametrize("before", [None, signer()])
def test_a_chain_of_another_key_or_of_none_ends_and_another_starts(tmp_path: Path, before: AuditSigner | None) -> None:
    written(tmp_path, before, segments=1)
    chain = opened(tmp_path, signer(), HandClock(wall_ms=1))
    chain.append([decision(1)])
    chain.close()
    reports = [verify(held).verdict for held in read_segments(tmp_path).values()]
    assert reports == [Verdict.OK, Verdict.OK]


def test_a_write_that_fails_leaves_no_signature_over_what_was_not_written(tmp_path: Path) -> None:
    clock, key = HandClock(), signer()
    chain = opened(tmp_path, key, clock)
    chain.append([decision(1)])
    clock.advance(AUDIT_CHECKPOINT_S)
    file = chain._file
    assert file is not None

    def fail(_contents: object) -> None:
        file.unknown = True
        raise OSError(5, "the disk is gone")

    good, file.append_group = file.append_group, fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="gone"):
        chain.append([decision(2)])
    assert good is not None
    chain.append([decision(3)])
    chain.close()
    (held,) = read_segments(tmp_path).values()
    assert verify(held, known=Known(keys=(key.key,))).verdict is Verdict.OK
    assert kinds(tmp_path) == ["open", "decision", "open", "checkpoint", "decision", "checkpoint"]


def test_an_honest_restart_finds_nothing_missing(tmp_path: Path) -> None:
    for _ in range(3):
        written(tmp_path / "log", audit_signer(tmp_path), segments=1)
    assert len(read_segments(tmp_path / "log")) == 1


def test_a_crash_before_anything_was_signed_is_no_finding(tmp_path: Path) -> None:
    for n in range(3):
        chain = opened(tmp_path / "log", audit_signer(tmp_path), HandClock())
        chain.append([decision(n)])
        chain._signer = None  # it dies: nothing is signed off
        chain.close()
        assert "signed" not in chain.degraded
    assert len(read_segments(tmp_path / "log")) == 1


def _cut(directory: Path) -> None:
    segments(directory)[-1].path.unlink()


def _rewrite(directory: Path) -> None:
    """Write a log of the same length whose every digest is right, in the place of the old one."""
    link, tree = START, Frontier()
    for segment in segments(directory):
        data = b""
        for _, content in frames(segment.path.read_bytes()):
            record = json.loads(content)
            plain = {name: value for name, value in record.items() if name not in ("n", "prev", "digest")}
            plain |= {"tree": spelled(tree)} if "tree" in plain else {"detail": "forged"}
            forged, link = seal(plain, link)
            tree.add(bytes.fromhex(link.digest))
            data += frame(forged)
        segment.path.write_bytes(data)


def _take_away(directory: Path) -> None:
    for segment in segments(directory):
        segment.path.unlink()


def _put_another(directory: Path) -> None:
    """Put an unsigned chain that names our key, and looks newer, beside the real one."""
    (first,) = segments(directory)[:1]
    opening = json.loads(next(frames(first.path.read_bytes()))[1])
    later = {name: value for name, value in opening.items() if name not in ("n", "prev", "digest")}
    content, _ = seal(later | {"chain": "pdp-9999999999999"}, START)
    (directory / "pdp-9999999999999.000000000001.log").write_bytes(frame(content))


@pytest.mark.parametrize("attack", [_cut, _rewrite, _take_away, _put_another])
def test_a_log_that_was_changed_while_nobody_wrote_it_is_found_out_by_its_writer(
    tmp_path: Path, attack: Callable[[Path], None]
) -> None:
    log = tmp_path / "log"
    before = written(log, audit_signer(tmp_path))
    attack(log)
    chain = opened(log, audit_signer(tmp_path), HandClock())
    chain.append([decision(1)])
    chain.close()
    assert chain.name != before
    assert before in chain.degraded
    (opening,) = [content for _, content in frames(segments(log, chain.name)[0].path.read_bytes())][:1]
    assert json.loads(opening)["finding"] == chain.degraded
    assert verify(read_segments(log)[chain.name]).verdict is Verdict.OK


def test_what_a_pdp_receives_verifies_with_the_key_of_its_writer(tmp_path: Path) -> None:
    key = signer()
    written(tmp_path / "own", key)
    ((_, held),) = read_segments(tmp_path / "own").items()
    received = ReceivedChain(tmp_path / "received", owner="user:gate", chain="pdp-1")
    received.append([content for _, data in held for _, content in frames(data)])
    received.close()
    ((_, stored),) = read_segments(tmp_path / "received").items()
    assert verify(stored, known=Known(keys=(key.key,))).verdict is Verdict.OK
    assert [data for _, data in stored] == [data for _, data in held]


def test_the_key_is_made_once_kept_to_its_owner_and_its_public_line_shown(tmp_path: Path) -> None:
    first = audit_signer(tmp_path)
    assert audit_signer(tmp_path).key == first.key
    assert VerifierKey.parse((tmp_path / PUBLIC_FILE).read_text()) == first.key
    private = tmp_path / "keys" / "audit.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in private.parent.iterdir()] == ["audit.pem"]
    private.chmod(0o644)
    with pytest.raises(ConfigError):
        audit_signer(tmp_path)


def test_a_trail_that_nobody_asks_anything_is_signed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "AUDIT_CHECKPOINT_S", 0.001)

    async def body() -> None:
        clock = HandClock()
        trail = AuditTrail(opened(tmp_path, signer(), clock), now_ms=clock.now_ms)
        await trail.record([decision(1)], durable=True)
        clock.advance(AUDIT_CHECKPOINT_S)
        async with asyncio.timeout(30):
            await trail.grown(2)
        assert kinds(tmp_path) == ["open", "decision", "checkpoint"]
        await trail.close()

    asyncio.run(body())


def test_a_record_that_is_no_json_starts_no_segment(tmp_path: Path) -> None:
    chain = opened(tmp_path, signer(), HandClock())
    chain.segment_bytes = 1
    with pytest.raises(ValueError, match="JSON"):
        chain.append([{"kind": "decision", "detail": object()}])
    assert kinds(tmp_path) == ["open"]
    assert seal(decision(1), chain.head)
    chain.close()
