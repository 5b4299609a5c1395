import re
from pathlib import Path

import pytest

from pdp.errors import ConfigError
from sidecar.config import (
    PdpAccess,
    check_pdp,
    listener_tls,
    load_routes,
    parse_address,
    parse_upstream,
    readable_file,
    sockets_in,
)
from sidecar.envoy_names import Address
from sidecar.routes import Placement, RouteTable

DIGEST = "0" * 64


def test_addresses() -> None:
    assert parse_address("127.0.0.1:9081", option="--listen") == Address(host="127.0.0.1", port=9081)
    assert parse_address("[::1]:0", option="--listen") == Address(host="::1", port=0)


@pytest.mark.parametrize("text", ["", "9081", "127.0.0.1", ":9081", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address_is_one_line_with_advice(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT") as fault:
        parse_address(text, option="--listen")
    assert "\n" not in str(fault.value)


def test_upstreams() -> None:
    assert parse_upstream("http://127.0.0.1:8080").address == Address(host="127.0.0.1", port=8080)
    assert parse_upstream("http://[::1]:8080/").address == Address(host="::1", port=8080)
    assert parse_upstream("unix:///run/model.sock").pipe == Path("/run/model.sock")
    assert parse_upstream("https://model.example", ca=Path("ca")).tls


@pytest.mark.parametrize(
    "text",
    ["", "model:8080", "ftp://model", "http://", "http://model:x", "http://model/path", "unix://model", "https://m"],
)
def test_a_wrong_upstream_is_one_line_with_advice(text: str) -> None:
    with pytest.raises(ConfigError, match="--upstream") as fault:
        parse_upstream(text)
    assert fault.value.advice


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--tls-key: cannot read .*No such file"):
        readable_file(tmp_path / "none.pem", option="--tls-key")


def test_halves_of_tls_are_refused(tmp_path: Path) -> None:
    for cert, key, ca, required in (
        (tmp_path, None, None, False),
        (None, tmp_path, None, False),
        (None, None, tmp_path, False),
        (tmp_path, tmp_path, None, True),
    ):
        with pytest.raises(ConfigError):
            listener_tls(cert, key, ca, required=required)
    assert listener_tls(None, None, None, required=False) is None


def test_a_replica_never_trusts_on_first_use() -> None:
    good = PdpAccess(address="127.0.0.1:8181", root_digest=DIGEST, ca=Path("ca"), cert=Path("c"), key=Path("k"))
    assert check_pdp(good) is good
    for bad in (
        PdpAccess(address="127.0.0.1:8181", root_digest="", ca=Path("ca"), cert=Path("c"), key=Path("k")),
        PdpAccess(address="127.0.0.1:8181", root_digest="Z" * 64, ca=Path("ca"), cert=Path("c"), key=Path("k")),
        PdpAccess(address="127.0.0.1:8181", root_digest=DIGEST, cert=Path("c"), key=Path("k")),
        PdpAccess(address="127.0.0.1:8181", root_digest=DIGEST, ca=Path("ca")),
        PdpAccess(address="127.0.0.1:8181", root_digest=DIGEST, ca=Path("ca"), cert=Path("c")),
    ):
        with pytest.raises(ConfigError):
            check_pdp(bad)


def routes_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    return path


def test_a_routes_file(tmp_path: Path) -> None:
    table = load_routes(
        routes_file(
            tmp_path, "served: {fraud: {resource: endpoint/fraud-prod, model: model/fraud@12}}\nserver: endpoint/all\n"
        )
    )
    assert table.served["fraud"].version == "12"
    assert table.server == "endpoint/all"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "served"),
        ("served: [", "YAML"),
        ("served: {}\nserves: {}", "serves"),
        ("served: {a: {resource: endpoint/a}, a: {resource: endpoint/b}}", "twice"),
        ("served: {a: {resource: nothing}}", "nothing"),
        ("served: {a: {resource: endpoint/a, model: model/a}}", "VERSION"),
        ("served: {a: {model: model/a@1}}", "resource"),
        ("served: {stats: {resource: endpoint/a}}", "stats"),
        ("served: !!python/object/apply:os.getcwd []", "not allowed"),
    ],
)
def test_a_broken_routes_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as fault:
        load_routes(routes_file(tmp_path, text))
    assert "\n" not in str(fault.value)


def test_a_state_directory_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shorter"):
        sockets_in(tmp_path / ("d" * 100))


def routes(tmp_path: Path, text: str) -> RouteTable:
    file = tmp_path / "routes.yaml"
    file.write_text(text)
    return load_routes(file)


def test_a_servers_own_routes_are_read(tmp_path: Path) -> None:
    table = routes(
        tmp_path,
        """
served: {m: {resource: endpoint/m, model: model/m@1, upstream: m-one, pinned: true}}
server: endpoint/all
protocols: [openai]
routes:
  - {name: rank, method: POST, path: "/rank/{m}"}
  - {name: ask, method: POST, path: /ask, body: json, stream: true}
  - {name: docs, method: GET, path: /docs.json, action: endpoint.observe, resource: endpoint/all}
  - {name: admin, method: POST, path: /admin, deny: true}
  - {name: live, method: WEBSOCKET, path: "/live/{m}"}
""",
    )
    own = {row.name: row for row in table.rows if row.name.startswith("own.")}
    assert {name: row.scope.value for name, row in own.items()} == {
        "own.rank": "served",
        "own.ask": "body",
        "own.docs": "fixed",
        "own.admin": "never",
        "own.live": "served",
    }
    assert own["own.live"].placement is Placement.EXT_PROC
    assert table.served["m"].upstream == "m-one"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("- {name: a, method: POST, path: /a, colour: red}", "routes.0.colour"),
        ("- {name: a, method: FETCH, path: /a}", "routes.0.method"),
        ("- {name: a, method: POST, path: a}", "is no path"),
        ("- {name: a, method: POST, path: //a}", "is no path"),
        ('- {name: a, method: POST, path: "/a/{model}"}', "is no path"),
        ("- {name: a, method: POST, path: /a}", "what does it ask about"),
        ("- {name: a, method: WEBSOCKET, path: /a, body: json}", "a WebSocket has no body"),
        ("- {name: a, method: POST, path: /a, resource: nothing}", "routes.own.a"),
        ("- {name: a, method: POST, path: /a, resource: endpoint/a, action: dance}", "routes.own.a"),
    ],
)
def test_a_route_that_cannot_be_is_refused_with_its_name(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        routes(tmp_path, f"served: {{}}\nroutes:\n  {line}\n")


def test_mlflow_is_decided_inside_its_server_only(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("server: workspace/mlflow\nprotocols: [mlflow]\nmlflow: {new: {environment: dev}}\n")
    with pytest.raises(ConfigError, match="inside MLflow's server") as fault:
        load_routes(file)
    assert "--app-name pdp" in str(fault.value.advice)
    table = load_routes(file, inside=True)
    assert table.registry is not None
    assert (table.registry.name, table.registry.new) == ("mlflow", {"environment": "dev"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mlflow: {name: a}", "`protocols` names no `mlflow`"),
        ("protocols: [mlflow]\nmlflow: {name: a/b}", "not one segment"),
        ("protocols: [mlflow]\nmlflow: {name: 'a b'}", "path segments"),
        ("protocols: [mlflow]\nmlflow: {new: {segment: 'segment:registry'}}", "needs an environment"),
        ("protocols: [mlflow]\nmlflow: {other: 1}", "other"),
    ],
)
def test_a_registry_that_cannot_be_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        load_routes(tmp_path / "routes.yaml", inside=True)
