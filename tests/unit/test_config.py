from pathlib import Path
from typing import Any

import pytest

from pdp.config import Address, Config, check_doors, configure
from pdp.errors import ConfigError

DEVELOPMENT = {"mode": "development"}


def where(path: tuple[Any, ...]) -> str:
    return f"pdp.yaml:{len(path)}"


def refused(values: Any = None, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as error:
        configure(values, where=where, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def refused_doors(values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check_doors(configure(values))
    return str(error.value)


def test_the_defaults_are_production_and_need_tls() -> None:
    assert "in production needs TLS" in refused_doors({})
    check_doors(configure({"grpc": {"tls": {"cert": "c.pem", "key": "k.pem"}}}))


def test_plaintext_is_for_this_machine_in_development_only() -> None:
    check_doors(configure(DEVELOPMENT))
    check_doors(configure(DEVELOPMENT | {"grpc": {"listen": "unix:/run/pdp.sock"}}))
    for listen in ("0.0.0.0:8181", "[::]:8181", "10.0.0.1:8181", "pdp.example:8181"):
        assert "needs TLS" in refused_doors(DEVELOPMENT | {"grpc": {"listen": listen}})
    assert "needs TLS" in refused_doors({"mode": "production", "grpc": {"listen": "127.0.0.1:8181"}})


def test_an_unknown_key_is_refused_where_it_stands_with_the_nearest() -> None:
    assert refused({"grcp": {}}) == "pdp.yaml:1: `grcp` is not a known key; do you mean `grpc`?"
    assert refused(DEVELOPMENT | {"log": {"levle": "info"}}) == (
        "pdp.yaml:2: `log.levle` is not a known key; do you mean `level`?"
    )


@pytest.mark.parametrize(
    "values", [{"mode": "prod"}, {"grpc": {"listen": "8181"}}, {"grpc": {"listen": "a:99999"}}, {"grace_s": 0}, ["x"]]
)
def test_a_wrong_value_is_one_line_that_says_where(values: Any) -> None:
    assert refused(values).startswith("pdp.yaml:")


def test_the_environment_beats_the_file_and_flags_beat_both() -> None:
    values = {"mode": "development", "grpc": {"listen": "127.0.0.1:1"}}
    environment = {"PDP_GRPC__LISTEN": "127.0.0.1:2", "PDP_LOG__LEVEL": "debug", "HOME": "/"}
    config = configure(values, environment=environment)
    assert (config.grpc.listen.port, config.log.level) == (2, "debug")
    config = configure(values, environment=environment, flags={("grpc", "listen"): "127.0.0.1:3", ("tenant",): None})
    assert (config.grpc.listen.port, config.tenant) == (3, "main")


def test_a_variable_that_is_no_setting_is_refused_and_a_foreign_one_is_not() -> None:
    assert "PDP_GRPC__LISTN is no setting: do you mean PDP_GRPC__LISTEN?" in refused(
        DEVELOPMENT, environment={"PDP_GRPC__LISTN": "x"}
    )
    foreign = {"PDP_SERVICE_HOST": "10.0.0.1", "PDP_PORT_8181_TCP": "tcp://10.0.0.1:8181", "PDP_TOKEN_FILE": "token"}
    configure(DEVELOPMENT, environment=foreign)


def test_a_wrong_variable_is_named_as_the_place() -> None:
    assert refused(DEVELOPMENT, environment={"PDP_PROBES__LISTEN": "x"}).startswith("PDP_PROBES__LISTEN: ")


def test_tls_can_be_set_by_flags_alone() -> None:
    config = configure(flags={("grpc", "tls", "cert"): "c.pem", ("grpc", "tls", "key"): "k.pem"})
    assert config.grpc.tls is not None
    assert config.grpc.tls.client_ca is None
    assert "`grpc.tls.key` is missing" in refused(flags={("grpc", "tls", "cert"): "c.pem"})


def test_paths_in_the_file_are_relative_to_it() -> None:
    values = DEVELOPMENT | {"state_dir": "s", "trust": "/t.yaml", "audit": {"dir": "a"}}
    config = configure(values, base=Path("/etc/pdp"), flags={("tenant",): "x"})
    assert (config.state_dir, config.trust, config.audit_dir) == (
        Path("/etc/pdp/s"),
        Path("/t.yaml"),
        Path("/etc/pdp/a"),
    )
    assert configure(DEVELOPMENT).audit_dir == Path("state/audit")


def test_a_configuration_cannot_be_changed() -> None:
    config = configure(DEVELOPMENT)
    with pytest.raises(ValueError, match="frozen"):
        config.tenant = "other"
    assert isinstance(config, Config)


def test_addresses_read_back() -> None:
    for text in ("127.0.0.1:8181", "[::1]:8181", "unix:/run/pdp.sock", "localhost:0"):
        assert str(Address.parse(text)) == text
        assert Address.parse(text).local


@pytest.mark.parametrize(
    "sink",
    [
        {"to": "file"},
        {"to": "file", "path": "x", "url": "https://c/v1/logs"},
        {"to": "otlp"},
        {"to": "otlp", "url": "collector:4318"},
        {"to": "otlp", "url": "http://collector:4318/v1/logs"},
        {"to": "otlp", "url": "https://user:pw@collector/v1/logs"},
        {"to": "stdout", "path": "x"},
        {"to": "stdout", "ca": "ca.pem"},
        {"to": "syslog"},
        {"to": "stdout", "mask": ["names"]},
        {"to": "stdout", "colour": "red"},
    ],
)
def test_a_sink_that_is_none_or_sends_in_the_clear_is_refused(sink: dict[str, Any]) -> None:
    assert "audit.sinks.0" in refused(DEVELOPMENT | {"audit": {"sinks": [{"name": "s", **sink}]}})


def test_sinks_have_names_of_their_own_and_files_beside_the_configuration() -> None:
    sinks = [
        {"name": "a", "to": "file", "path": "out.jsonl"},
        {"name": "b", "to": "otlp", "url": "http://[::1]:1/v1/logs"},
    ]
    made = configure(DEVELOPMENT | {"audit": {"sinks": sinks}}, base=Path("/etc/pdp"))
    assert made.audit.sinks[0].path == Path("/etc/pdp/out.jsonl")
    assert "a name of its own" in refused({"audit": {"sinks": [sinks[0], sinks[0]]}})
