"""F6, F7 by the kernel: a loopback of its own that swallows everything, or trickles. Siblings without root: test_link."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BEFORE = """
import asyncio, subprocess
from tests.faults.test_link import Scene

def link(*words):
    subprocess.run(("ip", "link", "set", "lo", *words), check=True)

"""
_SLOW = """
async def work():
    scene = Scene(idle_s=5.0)
    async with scene.running():
        for number in range(1, 5):
            await scene.lock(number)
        await scene.holds(4)
"""
_SWALLOWS = """
async def work():
    scene = Scene()
    async with scene.running():
        await scene.lock(1)
        await scene.holds(1)
        link("down")  # nobody is told: packets are gone
        await scene.lock(2)
        scene.clock.advance(61)
        assert scene.edge.staleness_s(now_ms=scene.clock.now_ms(), mono_s=scene.clock.mono_s()) > 60
        await asyncio.wait((asyncio.create_task(scene.holds(2)),), timeout=1.5)
        assert scene.edge.world.seq == 1
        link("up")
        await scene.holds(2)
"""
_AFTER = """
asyncio.run(work())
print("held")
"""
_SHAPE = "tc qdisc add dev lo root tbf rate 256kbit burst 4kb latency 2s"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs_root,
    pytest.mark.skipif(not all(map(shutil.which, ("unshare", "ip", "tc"))), reason="no unshare, ip or tc"),
]


def in_namespace(program: str, *, shape: str = "true") -> str:
    """Run a program where the loopback is its own; return what it said."""
    script = f'ip link set lo up && {shape} && exec "$0" -c "$1"'
    ended = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, sys.executable, _BEFORE + program + _AFTER],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=55,
    )  # fmt: skip
    if "Operation not permitted" in ended.stderr or "Specified qdisc" in ended.stderr:
        pytest.skip("this machine lets root make no such network")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.holds("F7")
def test_root_a_link_of_few_bits_converges() -> None:
    assert in_namespace(_SLOW, shape=_SHAPE) == "held"


@pytest.mark.holds("F6", "P6")
def test_root_a_link_that_swallows_everything_is_found_out_and_heals() -> None:
    assert in_namespace(_SWALLOWS) == "held"
