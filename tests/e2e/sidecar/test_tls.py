"""TLS at the real Envoy: a client certificate reaches the agent as Envoy saw it, and never as a client says it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509

from pdp.errors import ConfigError
from sidecar.envoy import ListenerTls

INFER = "/v2/models/fraud/infer"
FORGED = {"x-forwarded-client-cert": f'Hash={"0" * 64};Cert="forged";URI=spiffe://demo.portcullis/eve'}
WITH = "workload:spiffe://demo.portcullis/with-certificate"
WITHOUT = "workload:spiffe://demo.portcullis/without"


def server_files(directory: Path, ca: trustme.CA) -> ListenerTls:
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "gate.key")
    issued.cert_chain_pems[0].write_to_path(directory / "gate.pem")
    ca.cert_pem.write_to_path(directory / "ca.pem")
    return ListenerTls(certificate=directory / "gate.pem", key=directory / "gate.key", client_ca=directory / "ca.pem")


def context(ca: trustme.CA, client: trustme.LeafCert | None) -> ssl.SSLContext:
    made = ssl.create_default_context()
    ca.configure_trust(made)
    if client is not None:
        client.configure_cert(made)
    return made


async def ask(lab: Any, tls: ssl.SSLContext, *, http2: bool, **headers: str) -> int:
    url = f"https://{lab.address.host}:{lab.address.port}{INFER}"
    async with httpx.AsyncClient(verify=tls, http2=http2, timeout=10) as client:
        answer = await client.post(url, headers={"authorization": "Bearer good", **headers})
    return answer.status_code


@pytest.mark.parametrize("http2", [False, True])
def test_the_certificate_is_envoys_word_and_not_the_clients(
    in_lab: Callable[..., None], tmp_path: Path, *, http2: bool
) -> None:
    ca = trustme.CA()

    async def body(lab: Any) -> None:
        certified = context(ca, ca.issue_cert("app@example.com"))
        bare = context(ca, None)
        assert await ask(lab, certified, http2=http2) == 200
        assert await ask(lab, certified, http2=http2, **FORGED) == 200
        assert await ask(lab, bare, http2=http2) == 200
        assert await ask(lab, bare, http2=http2, **FORGED) == 200
        assert [str(one.workload) for one in lab.decider.questions] == [WITH, WITH, WITHOUT, WITHOUT]

    in_lab(body, tls=server_files(tmp_path, ca))


def test_a_strangers_certificate_ends_the_handshake(in_lab: Callable[..., None], tmp_path: Path) -> None:
    ca = trustme.CA()

    async def body(lab: Any) -> None:
        stranger = context(ca, trustme.CA().issue_cert("eve@example.com"))
        with pytest.raises((httpx.TransportError, ssl.SSLError)):  # whichever side of the handshake ends first
            await ask(lab, stranger, http2=False)
        assert lab.decider.questions == []

    in_lab(body, tls=server_files(tmp_path, ca))


async def serial(lab: Any, ca: trustme.CA) -> int:
    """Return the serial number of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection(lab.address.host, lab.address.port, ssl=context(ca, None))
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Envoy announces no reload: ask until it has taken it up."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


def test_a_certificate_is_replaced_without_dropping_a_connection(in_lab: Callable[..., None], tmp_path: Path) -> None:
    ca = trustme.CA()

    async def body(lab: Any) -> None:
        old = await serial(lab, ca)
        url = f"https://{lab.address.host}:{lab.address.port}{INFER}"
        async with httpx.AsyncClient(verify=context(ca, None), timeout=10) as client:
            assert (await client.post(url, headers={"authorization": "Bearer good"})).status_code == 200
            (tmp_path / "gate.key").write_bytes(b"half of a key")
            assert lab.plane.rotation.look() is False  # in the middle of a rotation the old pair serves
            assert await serial(lab, ca) == old
            server_files(tmp_path, ca)
            assert lab.plane.rotation.look() is True

            async def replaced() -> bool:
                return await serial(lab, ca) != old

            await until(replaced)
            connections = len(client._transport._pool.connections)
            assert (await client.post(url, headers={"authorization": "Bearer good"})).status_code == 200
            assert len(client._transport._pool.connections) == connections == 1  # the same one, still up
        assert lab.plane.envoy.restarts == 0

    in_lab(body, tls=server_files(tmp_path, ca))


def test_the_callers_ca_is_replaced_too(in_lab: Callable[..., None], tmp_path: Path) -> None:
    ca, newer = trustme.CA(), trustme.CA()

    async def body(lab: Any) -> None:
        client = newer.issue_cert("app@example.com")
        made = context(ca, client)
        newer.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert lab.plane.rotation.look() is True

        async def believed() -> bool:
            try:
                return await ask(lab, made, http2=False) == 200
            except (httpx.TransportError, ssl.SSLError):
                return False

        await until(believed)
        assert str(lab.decider.questions[-1].workload) == WITH

    in_lab(body, tls=server_files(tmp_path, ca))


def test_a_key_that_does_not_fit_is_one_line(in_lab: Callable[..., None], tmp_path: Path) -> None:
    tls = server_files(tmp_path, trustme.CA())
    trustme.CA().issue_cert("other").private_key_pem.write_to_path(tmp_path / "gate.key")

    async def body(lab: Any) -> None:
        del lab

    with pytest.raises(ConfigError, match="fit together"):
        in_lab(body, tls=tls)
