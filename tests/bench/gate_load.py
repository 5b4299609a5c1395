"""Driving a door over plain HTTP/1.1: `wrk`, or our own generator where there is no `wrk`.

Both keep every connection busy with one request at a time. `wrk` is C and takes a small share of the processor; our own is
Python and takes as much as what it measures, so that its figures say less: `generator` names which of the two it was.
"""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.load import Load, Result, drive

_SCRIPT = """
wrk.method, wrk.body = "POST", %(body)s
%(headers)s
done = function(summary, latency)
  local errors = summary.errors
  local failures = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\\n{"requests_per_s": %%f, "p50_ms": %%f, "p99_ms": %%f, "failures": %%d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failures))
end
"""


def generator() -> str:
    """Return which load generator `run` uses."""
    return "wrk" if shutil.which("wrk") else "the built-in generator (no wrk here: `apt-get install wrk`)"


def run(load: Load) -> Result:
    """Run `load` in a process of its own and return what it measured."""
    return _wrk(load) if shutil.which("wrk") else drive(load)


def script(load: Load) -> str:
    """Return what `wrk` is told: the request, and to sum up as one line of JSON."""
    headers = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(text)}" for name, text in load.headers.items())
    return _SCRIPT % {"body": json.dumps(load.body), "headers": headers}


def summed_up(output: str) -> Result:
    """Return the result that the script wrote last."""
    return Result(**json.loads(output.strip().splitlines()[-1]))


def _wrk(load: Load) -> Result:
    with TemporaryDirectory(prefix="pdp-bench-") as name:
        path = Path(name) / "load.lua"
        path.write_text(script(load))
        url = f"http://{load.host}:{load.port}{load.path}"
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.duration_s}s", "-s", str(path), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return summed_up(done.stdout)
