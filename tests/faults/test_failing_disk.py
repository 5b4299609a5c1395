"""F10 by the kernel: fsync and fdatasync that fail or dawdle, injected by strace. Siblings without root: test_audit_file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.adapters.audit_reader import read_segments
from pdp.audit.chain import Verdict
from pdp.audit.verify import verify as verify_chain
from tests.faults.test_kill9 import acknowledged, verify
from tests.faults.test_kill9 import run as run_writer
from tests.faults.writer import authority

ROOT = Path(__file__).parents[2]
_AUDIT = """
import asyncio, sys, time
from pathlib import Path
from pdp.adapters.audit_file import AuditChain
from pdp.errors import PortcullisError
from pdp.service.audit import AuditTrail

async def main():
    chain = AuditChain.open(Path(sys.argv[1]), name="pdp", who=dict, now_ms=lambda: time.time_ns() // 10**6)
    trail = AuditTrail(chain, now_ms=lambda: 1, commit_timeout_s=float(sys.argv[2]))
    for number in range(8):
        try:
            await trail.record([{"v": 1, "kind": "decision", "time_ms": 1, "detail": f"r{number}"}], durable=True)
        except PortcullisError as error:
            print("refused", number, error.reason.value, flush=True)
        else:
            print("durable", number, flush=True)
    await trail.close()

asyncio.run(main())
"""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs_root,
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace"),
]


def under_strace(inject: str, *command: str) -> tuple[int, list[list[str]]]:
    """Run Python with system calls tampered with; return its exit code and what it said."""
    tracing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", f"inject={inject}"]
    ended = subprocess.run(
        [*tracing, sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50
    )
    if "ptrace" in ended.stderr and "permitted" in ended.stderr:
        pytest.skip("this machine lets root trace nothing")
    return ended.returncode, [line.split() for line in ended.stdout.splitlines()]


@pytest.mark.holds("F10", "S4", "P9")
@pytest.mark.parametrize("when", ["2+", "9", "17", "17+", "26+"])
def test_root_a_change_whose_fsync_fails_is_not_acknowledged_and_nothing_acknowledged_is_lost(
    tmp_path: Path, when: str
) -> None:
    authority(tmp_path)
    code, said = under_strace(f"fsync,fdatasync:error=EIO:when={when}", "-m", "tests.faults.writer", str(tmp_path))
    assert code != 0
    promised = acknowledged(said, 0)
    verify(tmp_path, promised)
    again = run_writer(tmp_path, lines=3)
    promised = acknowledged(again, promised)
    verify(tmp_path, promised)


@pytest.mark.holds("F10", "S4", "P8")
@pytest.mark.parametrize("when", ["4", "4..6", "3+"])
def test_root_a_record_whose_fsync_fails_lets_no_allow_go_and_its_file_is_not_written_again(
    tmp_path: Path, when: str
) -> None:
    _, said = under_strace(f"fdatasync:error=EIO:when={when}", "-c", _AUDIT, str(tmp_path), "20")
    refused = [words for words in said if words[0] == "refused"]
    assert refused
    assert {words[2] for words in refused} == {"audit_unavailable"}
    (found,) = read_segments(tmp_path).values()
    report = verify_chain(found)
    assert report.verdict is Verdict.OK
    held = "".join(data.decode() for _, data in found)
    assert all(f'"r{words[1]}"' in held for words in said if words[0] == "durable")
    assert len(found) > 1


@pytest.mark.holds("F10", "F29", "S1")
def test_root_a_disk_that_dawdles_bounds_what_an_allow_waits(tmp_path: Path) -> None:
    slow = "fdatasync:delay_enter=1500000:when=2..3"
    _, said = under_strace(slow, "-c", _AUDIT, str(tmp_path), "0.5")
    assert "refused" in {words[0] for words in said}
    assert said[-1][0] == "durable"
