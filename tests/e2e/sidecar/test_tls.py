"""TLS at the real Envoy: a client certificate reaches the agent as Envoy saw it, and never as a client says it."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

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
