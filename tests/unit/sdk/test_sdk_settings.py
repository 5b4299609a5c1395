import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import trustme
from scripted_pdp import ScriptedPdp, evaluated

from pdp.errors import ConfigError, Reason
from pdp.limits import MAX_TOKEN_BYTES
from pdp.sdk import BadQuestion, Client, CredentialRefused, PdpUnavailable, Question

EVALUATE = "DecisionService/Evaluate"
READ = ("dataset.read", "dataset/finance/transactions")

# Without `grpc_health` and `grpc_reflection`: where they are installed, `grpc` itself imports them.
SERVER_DEPENDENCIES = {
    *("casbin", "cel_expr_python", "cryptography", "httpx", "jwt", "prometheus_client", "pydantic", "re2", "redis"),
    *("rich", "starlette", "structlog", "typer", "uvicorn", "yaml"),
}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    return path


def test_a_token_file_that_rotates_is_read_again(pdp: ScriptedPdp, token_file: Path) -> None:
    pdp.script(EVALUATE, evaluated())
    with Client(pdp.address, token=token_file) as client:
        client.check(*READ)
        token_file.write_text("d.e.f\n")
        client.check(*READ)
    assert pdp.credentials == ["Bearer a.b.c", "Bearer d.e.f"]


def test_a_token_function_is_called_each_time(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    with Client(pdp.address, token=lambda: "f.g.h") as client:
        client.check(*READ)
    assert pdp.credentials == ["Bearer f.g.h"]


def test_the_environment_fills_what_is_not_given(
    pdp: ScriptedPdp, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pdp.script(EVALUATE, evaluated())
    monkeypatch.setenv("PDP_SERVER", pdp.address)
    monkeypatch.setenv("PDP_TOKEN_FILE", str(token_file))
    with Client() as client:
        client.check(*READ)
    with Client(token="") as client:
        client.check(*READ)
    assert pdp.credentials == ["Bearer a.b.c", ""]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", Reason.CREDENTIAL_MISSING),
        ("two words", Reason.TOKEN_MALFORMED),
        ("a.b.c\nx-header: 1", Reason.TOKEN_MALFORMED),
        ("tökèn", Reason.TOKEN_MALFORMED),
        ("x" * (MAX_TOKEN_BYTES + 1), Reason.TOKEN_TOO_LARGE),
    ],
)
def test_what_cannot_be_a_token_is_never_sent(pdp: ScriptedPdp, token_file: Path, content: str, reason: Reason) -> None:
    token_file.write_text(content)
    with Client(pdp.address, token=token_file) as client, pytest.raises(CredentialRefused) as raised:
        client.check(*READ)
    assert raised.value.reason is reason
    assert content not in str(raised.value) or not content
    assert pdp.calls == []


def test_a_missing_token_file_is_named(pdp: ScriptedPdp, tmp_path: Path) -> None:
    with Client(pdp.address, token=tmp_path / "gone") as client, pytest.raises(CredentialRefused, match="gone"):
        client.check(*READ)


def test_a_file_name_given_as_token_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"pathlib\.Path"):
        Client("127.0.0.1:1", token="/var/run/secrets/token")


@pytest.mark.holds("G3")
@pytest.mark.parametrize("timeout_s", [0, -1, 31, float("nan")])
def test_a_deadline_is_always_set_and_bounded(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout_s"):
        Client("127.0.0.1:1", timeout_s=timeout_s)


# TLS.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def secure(authority: trustme.CA) -> ScriptedPdp:
    leaf = authority.issue_cert("127.0.0.1")
    key, chain = leaf.private_key_pem.bytes(), b"".join(part.bytes() for part in leaf.cert_chain_pems)
    root = authority.cert_pem.bytes()
    return ScriptedPdp(grpc.ssl_server_credentials([(key, chain)], root, require_client_auth=True))


def test_mutual_tls(authority: trustme.CA, tmp_path: Path) -> None:
    mine = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    with secure(authority) as pdp, Client(pdp.address, **files) as client:  # type: ignore[arg-type]
        pdp.script(EVALUATE, evaluated())
        assert client.check(*READ).allowed


def test_a_server_of_another_authority_is_not_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    with secure(authority) as pdp, Client(pdp.address, token="a.b.c", ca=tmp_path / "ca.pem") as client:
        with pytest.raises(PdpUnavailable):
            client.check(*READ)
        assert pdp.credentials == []


@pytest.mark.parametrize("server", ["pdp.example:8181", "10.0.0.1:8181", "dns:///pdp.example:8181", "[2001:db8::1]:1"])
def test_nothing_leaves_the_host_in_clear_text(server: str) -> None:
    with Client(server) as client:
        assert client._core.settings.secure


@pytest.mark.parametrize("server", ["127.0.0.1:8181", "localhost:8181", "[::1]:8181", "unix:/run/pdp.sock"])
def test_loopback_needs_no_tls(server: str) -> None:
    with Client(server) as client:
        assert not client._core.settings.secure


def test_a_certificate_without_its_key_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "cert.pem")
    with pytest.raises(ConfigError, match="come together"):
        Client("127.0.0.1:1", cert=tmp_path / "cert.pem")


def test_a_key_of_another_certificate_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(ConfigError, match=r"cert\.pem"):
        Client("127.0.0.1:1", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_an_unusable_ca_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Client("127.0.0.1:1", ca=tmp_path / "ca.pem")


# Attributes.


def test_every_type_of_attribute_travels_as_itself(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    attributes = {
        "request.flag": True,
        "request.count": 3,
        "request.share": 0.5,
        "request.purpose": "audit",
        "request.tags": ["a", "b"],
        "request.at": datetime(2026, 11, 20, 8, tzinfo=UTC),
    }
    with Client(pdp.address) as client:
        client.check(*READ, attributes=attributes)
    sent = pdp.asked(EVALUATE)[0].question.attributes
    kinds = {name: sent[name].WhichOneof("kind") for name in sent}
    assert kinds == {
        "request.flag": "bool_value",
        "request.count": "int_value",
        "request.share": "double_value",
        "request.purpose": "string_value",
        "request.tags": "list_value",
        "request.at": "timestamp_value",
    }
    assert sent["request.at"].timestamp_value == "2026-11-20T08:00:00Z"


def test_an_instant_without_a_time_zone_is_refused() -> None:
    naive = datetime(2026, 11, 20, 8)  # noqa: DTZ001 - the point of the test
    with Client("127.0.0.1:1") as client, pytest.raises(BadQuestion, match="time zone"):
        client.check_many([Question(action=READ[0], resource=READ[1], attributes={"request.at": naive})])


# The process.


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # A program of the test's own, in a process of its own.
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_importing_the_sdk_imports_nothing_of_a_server() -> None:
    ended = run_python("-c", "import sys, pdp.sdk, pdp.sdk.admin; print(*sys.modules)")
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert ended.returncode == 0, ended.stderr
    assert "grpc" in loaded
    assert loaded.isdisjoint(SERVER_DEPENDENCIES)
    ours = {name for name in ended.stdout.split() if name.startswith("pdp.")}
    assert not {name for name in ours if name.startswith(("pdp.server", "pdp.service", "pdp.adapters", "pdp.engine"))}


FORKED = """
import os, sys
from pdp.sdk import AsyncClient, Client, ClientUnusable
client = Client(token="a.b.c", timeout_s=5)
client.check("dataset.read", "dataset/x")
child = os.fork()
if child == 0:
    try:
        client.check("dataset.read", "dataset/x")
    except ClientUnusable as error:
        client.close()
        os._exit(42 if "after the fork" in str(error) else 1)
    os._exit(2)
_, status = os.waitpid(child, 0)
client.check("dataset.read", "dataset/y")
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.holds("F31")
def test_f31_a_forked_client_says_so_and_its_parent_goes_on(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    ended = run_python("-c", FORKED, PDP_SERVER=pdp.address)
    assert ended.returncode == 42, ended.stderr
    assert len(pdp.asked(EVALUATE)) == 2


LOADER = """
import multiprocessing, sys
import fsspec
from pdp.sdk import Client


def work(fs, told):
    with Client(timeout_s=20) as client:
        told.put((client.check("dataset.read", "dataset/x").allowed, fs.cat_file("dataset/x/a")))


if __name__ == "__main__":
    how, lake = sys.argv[1:]
    fs = fsspec.filesystem("pdp", mounts={"dataset/x": lake})
    fs.cat_file("dataset/x/a")  # now the parent has a connection, and threads of gRPC
    context = multiprocessing.get_context(how)
    told = context.Queue()
    worker = context.Process(target=work, args=(fs, told))
    worker.start()
    print(told.get(timeout=60))
    worker.join(60)
    sys.exit(worker.exitcode)
"""


@pytest.mark.holds("F31")
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_f31_a_worker_asks_for_itself_however_it_was_begun(pdp: ScriptedPdp, tmp_path: Path, how: str) -> None:
    """As the workers of a data loader do: the filesystem comes along, a client is made in the worker."""
    pdp.script(EVALUATE, evaluated())
    (tmp_path / "a").write_text("a")
    (tmp_path / "loader.py").write_text(LOADER)
    ended = run_python(str(tmp_path / "loader.py"), how, str(tmp_path), PDP_SERVER=pdp.address)
    assert (ended.returncode, ended.stdout) == (0, "(True, b'a')\n"), ended.stderr
    assert len(pdp.asked(EVALUATE)) == 3  # the parent, the worker's filesystem, and its client
