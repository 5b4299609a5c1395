"""The lines to copy and paste while the stage is kept: they work as printed, from any directory and any shell."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from rich.text import Text

from pdp.demo import commands
from pdp.demo.acts import infer_body
from pdp.demo.authority import write_private
from pdp.demo.stage import Stage
from pdp.demo.story import (
    ADA,
    CONSOLE,
    DANA,
    FRONTEND,
    NOTEBOOK,
    PROD_MODEL,
    SAM,
    TRAINING_DATA,
    Person,
    Token,
    Workload,
)

ENDLESS: Final = {"parameters": {"count": 10_000, "interval_ms": 500}}


def lines_to_try(stage: Stage) -> Text:
    """Write the request bodies and the settings into the stage's directory, and return the lines that use them."""
    where = stage.directory
    write_private(where / "image.json", json.dumps(infer_body(1)).encode())
    write_private(where / "stream.json", json.dumps(ENDLESS).encode())
    write_private(where / "ada.env", _settings(stage, ADA, CONSOLE))
    write_private(where / "dana.env", _settings(stage, DANA, NOTEBOOK))
    pdp, state = _pdp(), shlex.quote(str(stage.audit.parent))
    lines = (
        ("where everything is", f"cd {shlex.quote(str(where))}"),
        ("sam asks the model", _curl(stage, SAM, FRONTEND, "infer", "image.json")),
        ("the same from a notebook: forbidden", _curl(stage, SAM, NOTEBOOK, "infer", "image.json")),
        ("a stream; leave it running", _curl(stage, SAM, FRONTEND, "generate_stream", "stream.json", "-N")),
        (
            "… and cut it from a second terminal",
            f"(. ./ada.env; {pdp} lock add {SAM.principal} --reason demo --wait all)",
        ),
        ("which locks are there", f"(. ./ada.env; {pdp} lock list)"),
        ("… and give access back", f"(. ./ada.env; {pdp} lock remove $({pdp} lock list | awk 'NR==2 {{print $1}}'))"),
        ("may dana read the training data", f"(. ./dana.env; {pdp} check dataset.read {TRAINING_DATA})"),
        ("what happened", f"(. ./ada.env; {pdp} audit tail)"),
        ("is the record whole", f"{pdp} audit verify {shlex.quote(str(stage.audit))}"),
        ("does it tell the truth: each decision made again", f"{pdp} audit replay --state-dir {state}"),
        ("what sam did, and who let them", f"{pdp} audit trace {SAM.principal} --state-dir {state} --html sam.html"),
    )
    text = Text()
    for purpose, line in lines:
        text.append(f"\n# {purpose}\n", style="dim").append(f"{line}\n")
    return text.append("\nThe stage stands until Ctrl-C.", style="bold")


def _curl(stage: Stage, person: Person, workload: Workload, verb: str, body: str, *options: str) -> str:
    own = stage.pki.workloads[workload]
    where = stage.directory
    pki = {"--cacert": stage.pki.bundle, "--cert": own.certificate, "--key": own.key}
    # HTTP/1.1: curl before 8.0 can take an early refusal over HTTP/2 for a broken stream, and would not show it.
    parts = [
        "curl",
        "-sS",
        "--http1.1",
        *options,
        *(part for flag, path in pki.items() for part in (flag, _inside(where, path))),
    ]
    token = _inside(where, stage.tokens[person, Token.FRESH])
    bearer = f'-H "authorization: Bearer $(cat {token})"'
    return f"{shlex.join(parts)} {bearer} --data @{body} {stage.gate_url}/v2/models/{PROD_MODEL}/{verb}"


def _settings(stage: Stage, person: Person, workload: Workload) -> bytes:
    settings = stage.environment(person, workload)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()).encode()


def _inside(directory: Path, path: Path) -> str:
    return str(path.relative_to(directory))


def _pdp() -> str:
    """Return how to call `pdp` from the reader's shell: by name if that finds ours, else in full."""
    ours, found = Path(sys.executable).with_name("pdp"), shutil.which("pdp")
    if not ours.exists():
        return shlex.join(commands.PDP)
    return "pdp" if found and Path(found).samefile(ours) else shlex.quote(str(ours))
