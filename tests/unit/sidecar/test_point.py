"""An enforcement point has the name that it is given, at every door, and decides under a canary that names it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar import cli
from sidecar.asgi_door import load
from sidecar.config import CoreConfig

DIGEST = "ab" * 32


def test_every_door_has_the_name_that_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("routes.yaml", "ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("served: {}\n")
    seen: list[CoreConfig] = []
    monkeypatch.setattr(cli, "_serve", seen.append)
    monkeypatch.setattr(cli, "_serve_foreign", lambda config, *_: seen.append(config))
    monkeypatch.chdir(tmp_path)
    files = ["--routes=routes.yaml", "--pdp-ca=ca.pem", "--cert=cert.pem", "--key=key.pem", "--trust=t"]
    pdp = ["--pdp=localhost:1", f"--root-digest={DIGEST}"]
    for door in (["run", "--upstream=http://127.0.0.1:1"], ["serve"]):
        for more in ([], ["--point=edge"]):
            assert CliRunner().invoke(cli.app, [*door, *files, *pdp, *more]).exit_code == 0
    file = tmp_path / "gate.yaml"
    file.write_text(
        f"{{pdp: {{address: 'localhost:1', root_digest: '{DIGEST}', ca: ca.pem, token_file: token}}, trust: t, "
        "routes: routes.yaml, state_dir: s, point: edge}"
    )
    assert [config.point for config in (*seen, load(file)[0])] == ["", "edge", "", "edge", "edge"]
