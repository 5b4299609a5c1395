"""P13: each weakened control is said at the start, shown by the readiness page while it lasts, and explained by `pdp doctor`."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from pdp.cli.doctor import _MEND, _MENDS
from pdp.config import configure
from pdp.identity.development import DEVELOPMENT_ISS
from pdp.server.app import Basis, announce
from tests.support.logs import HandClock
from tests.support.pdp import RunningPdp, initialised, running_pdp

CONTROLS = {
    "development mode": {},
    "gRPC without TLS": {},
    "a development issuer is trusted": {},
    "the root key lies on this machine": {},
    "the store is reached without TLS": {("store", "url"): "redis://redis.example:6379"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pdp")
    asyncio.run(initialised(directory))
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(str(directory / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return directory


def basis(directory: Path, flags: dict[tuple[str, ...], Any]) -> Basis:
    base = {
        ("mode",): "development",
        ("state_dir",): str(directory / "state"),
        ("trust",): str(directory / "trust.yaml"),
    }
    return Basis.read(configure(flags=base | flags))


@pytest.mark.holds("P13")
@pytest.mark.parametrize("control", CONTROLS)
def test_a_weakened_control_is_said_at_the_start(made: Path, control: str) -> None:
    started = basis(made, CONTROLS[control])
    assert control in started.degradations()
    with capture_logs() as logs:
        announce(started)
    assert control in {log.get("control") for log in logs}
    assert _MENDS[control]


@pytest.mark.holds("P13")
def test_a_pdp_as_it_should_be_has_nothing_to_say(made: Path, tmp_path: Path) -> None:
    trust = (made / "trust.yaml").read_text().replace("development: true\n", "")
    trust = trust.replace(DEVELOPMENT_ISS, "https://issuer.example").replace("jwks.json", str(made / "jwks.json"))
    (tmp_path / "trust.yaml").write_text(trust)
    (made / "state" / "keys" / "root.pem").rename(tmp_path / "root.pem")
    flags = {
        ("mode",): "production",
        ("trust",): str(tmp_path / "trust.yaml"),
        ("grpc", "tls", "cert"): str(made / "cert.pem"),
        ("grpc", "tls", "key"): str(made / "key.pem"),
        ("store", "url"): "rediss://redis.example:6379",
    }
    try:
        assert basis(made, flags).degradations() == ()
    finally:
        (tmp_path / "root.pem").rename(made / "state" / "keys" / "root.pem")


def test_every_control_that_configuration_weakens_is_in_this_table_and_in_the_doctors(made: Path) -> None:
    everything = basis(made, {flag: value for flags in CONTROLS.values() for flag, value in flags.items()})
    assert set(everything.degradations()) == set(CONTROLS) == set(_MENDS)


async def weaken_clock(pdp: RunningPdp) -> None:
    now = pdp.app.clock
    pdp.app.health._clock = HandClock(wall_ms=now.now_ms() + 300_000, mono=now.mono_s())


async def weaken_freshness(pdp: RunningPdp) -> None:
    now = pdp.app.clock
    pdp.app.health._clock = HandClock(wall_ms=now.now_ms(), mono=now.mono_s() + 16)


async def lose_records(pdp: RunningPdp) -> None:
    pdp.app.trail._lose(3)


async def drain(pdp: RunningPdp) -> None:
    pdp.app.health.draining = True


async def miss_workers(pdp: RunningPdp) -> None:
    pdp.app.health._more = replace(pdp.app.place, workers=2).degradations


@pytest.mark.holds("P13", "F13")
@pytest.mark.parametrize(
    ("weaken", "told"),
    [
        (weaken_clock, "the local clock is 300 s off signed time"),
        (weaken_freshness, "the world is stale"),
        (lose_records, "3 records could not be written"),
        (drain, "shutting down"),
        (miss_workers, "2 of 2 workers are not ready"),
    ],
)
def test_what_weakens_a_running_pdp_is_shown_and_logged_while_it_lasts(tmp_path: Path, weaken: Any, told: str) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            pdp.app.alarms.look()
            await weaken(pdp)
            assert any(told in text for text in pdp.app.health.report().degradations)
            with capture_logs() as logs:
                pdp.app.alarms.look()
            assert any(told in str(log.get("control")) for log in logs)

    asyncio.run(run())


def test_what_has_no_line_of_its_own_in_the_doctor_leads_to_the_document() -> None:
    document = Path(__file__).parents[3] / _MEND.split()[0]
    assert document.is_file()
