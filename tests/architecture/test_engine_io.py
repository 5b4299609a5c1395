"""S10: deciding touches nothing outside: no file, socket, process or clock of the machine, and no configuration that lies around.

Source: Kyverno CVE-2026-4789, -22039, -41323, GHSA-8wfp-579w-6r25; in-toto CVE-2023-32076.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from pdp.cli.settings import configuration
from pdp.config import Config

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys
from pathlib import Path
from pdp.ask import what_can
from pdp.decide import decide, explain
from pdp.engine.pack import Pack, load_pack
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from tests.support.worlds import START_MS, make_world
from pdp.adapters.pack_files import read_pack

files = read_pack(Path("policies"))
ROWS = '''
g, user:ada@x.org, role:reader, *
p, role:reader, dataset.read, dataset/**, *, "request.purpose == 'audit' && subject.id != resource.owner", , allow
p2, segment:none, *, segment:data, , allow
g3, dataset/finance, segment:data
'''

def work():
    pack = load_pack(files)
    assert isinstance(pack, Pack)
    world = make_world(ROWS, {"dataset/finance": {"environment": "prod", "owner": "user:bob@x.org"}})
    question = Question(
        subject=Party(principal=Principal.parse("user:ada@x.org")),
        action=Action.parse("dataset.read"),
        resource=Resource.parse("dataset/finance"),
        attributes={"request.purpose": "audit"},
    )
    assert decide(world, question, START_MS).allowed
    explain(world, question, START_MS)
    list(what_can(world, question.subject, START_MS))

work()  # whatever is imported or cached late, is so now
FORBIDDEN = ("open", "socket.", "subprocess.", "os.", "shutil.", "ctypes.dlopen", "import", "time.sleep")
seen = []
sys.addaudithook(lambda event, _arguments: seen.append(event) if event.startswith(FORBIDDEN) else None)
work()
print(sorted(set(seen)))
"""


@pytest.mark.holds("S10", "adv_engine_io")
def test_compiling_deciding_and_listing_touch_nothing_outside() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.holds("S10")
def test_a_configuration_that_lies_in_the_working_directory_is_not_mixed_into_the_one_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pdp.yaml").write_text("mode: development\ntenant: decoy\n")
    (tmp_path / "named.yaml").write_text("tenant: mine\n")
    monkeypatch.chdir(tmp_path)
    named: Config = configuration(tmp_path / "named.yaml", {})
    assert (named.tenant, named.mode) == ("mine", "production")
