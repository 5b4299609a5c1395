"""Every row of IDENTITY.md section 3 through every door that exists: refused with its code, its status and its challenge.

The doors are real servers: the PDP's gRPC, and the agent's ext_authz (HTTP and gRPC) and ext_proc on their sockets, spoken to
as Envoy speaks. Only the verifier's clock, keys and table are those of the attack.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as proc_grpc

from pdp.adapters.replay_memory import MemoryReplay
from pdp.errors import MEANINGS, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.challenge import Header, challenge
from pdp.identity.introspection import Introspection
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.keyset import KeySet
from pdp.identity.kubernetes import Review
from pdp.identity.types import Refusal
from pdp.identity.verifier import LiveAnswer
from pdp.server.grpc import interceptors
from pdp.service.authenticate import Authenticator
from pdp.service.live import LiveChecks
from pdp.service.nonces import Nonces
from pdp.signals.locks import Lock, LockSet, LockTarget
from pdp.v1 import decision_pb2, decision_pb2_grpc
from sidecar.core import Identifier
from sidecar.ext_authz import AuthorizationService, AuthzServer
from sidecar.ext_proc import ExternalProcessorService
from sidecar.gate import Gate
from sidecar.rechecks import Rechecker
from sidecar.routes import Served, oip
from tests.attacks import test_tokens, test_workload_tokens
from tests.support import workloads
from tests.support.certificates import leaf
from tests.support.enforcement import Clock, Decider
from tests.support.pdp import detail, running_pdp
from tests.support.tokens import (
    ALGS,
    ISS,
    NOW_MS,
    b64,
    bound_token,
    entry,
    good_token,
    holder,
    keys_of,
    proof,
    signer,
    table,
)

ORIGIN = "https://models.example"
PDP_PATH = "/pdp.v1.DecisionService/Evaluate"
UNARY, STREAM = "/v2/models/fraud/infer", "/v2/models/fraud/generate_stream"
TABLE = oip.table(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, server="")
Proof = Callable[[str], str | None]
GOOD_KEYS = keys_of(*(signer(alg) for alg in ALGS))


def no_proof(_htu: str) -> None:
    return None


class FixedClock:
    def now_ms(self) -> int:
        return NOW_MS

    def mono_s(self) -> float:
        return 1.0


class Keys:
    def __init__(self, sets: Mapping[str, KeySet | Refusal]) -> None:
        self.sets = sets

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet | Refusal:
        del kid
        return self.sets[issuer.iss]


class Live:
    def __init__(self, answer: LiveAnswer | Refusal) -> None:
        self.answer = answer

    async def review(self, issuer: Issuer, token: bytes) -> LiveAnswer | Refusal:
        del issuer, token
        return self.answer


SECRET = b"of this test"
NONCE = Nonces(clock=FixedClock(), secret=SECRET).current()
SILENCE = Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a caller sends, what the verifier has, and the reason that must come of it; None: let in."""

    name: str
    reason: Reason | None
    authorization: str | None
    proof: Proof = no_proof
    certificate: bytes | None = None
    trust: IssuerTable = field(default_factory=table)
    keys: Mapping[str, KeySet | Refusal] = field(default_factory=lambda: {ISS: GOOD_KEYS})
    locks: LockSet = LockSet.EMPTY
    review: LiveAnswer | Refusal = SILENCE
    before: int = 0
    dpop: bool = False

    def authenticator(self) -> Authenticator:
        clock = FixedClock()
        return Authenticator(
            issuers=self.trust,
            keys=Keys(self.keys),
            clock=clock,
            replay=MemoryReplay(clock=clock),
            nonces=Nonces(clock=clock, secret=SECRET),
            live=LiveChecks(source=Live(self.review), clock=clock),
        )


class Switch:
    """The authenticator of the case at hand, in the place of the door's own."""

    def __init__(self) -> None:
        self.now = Case(name="", reason=None, authorization=None).authenticator()
        self.locks = LockSet.EMPTY

    def set(self, case: Case) -> None:
        self.now, self.locks = case.authenticator(), case.locks

    async def authenticate(
        self, authorization: Any, peer: Any, *, locks: Any, request: Any = None, action: str = ""
    ) -> Any:
        del locks
        return await self.now.authenticate(authorization, peer, locks=self.locks, request=request, action=action)

    def nonce(self) -> str:
        return self.now.nonce()


def lock_on(target: str) -> LockSet:
    lock = Lock(id="l", target=LockTarget.parse(target), reason="r", source="user:ada", start_ms=NOW_MS - 1)
    return LockSet.EMPTY.added(lock)


def from_attack(attack: test_tokens.Attack) -> Case:
    keys = attack.keys or GOOD_KEYS
    dpop = attack.reason is Reason.DPOP_PROOF_INVALID
    dpop = dpop or (
        attack.reason is Reason.BINDING_REQUIRED and "jkt" in next(iter(attack.trust.issuers.values())).cnf_kinds
    )
    return Case(
        name=str(attack), reason=attack.reason, authorization=attack.authorization, trust=attack.trust,
        keys={keys.issuer: keys}, dpop=dpop,
    )  # fmt: skip


BOUND = table(entry(cnf_kinds=["jkt", "x5t#S256"]))
NONCED = table(entry(cnf_kinds=["jkt"], dpop_nonce=True))
TOKEN = bound_token()
CERTIFICATE = leaf()
HELD = good_token(cnf={"x5t#S256": b64(bytes.fromhex(PeerCertificate.from_der(CERTIFICATE).fingerprint))})  # type: ignore[union-attr]
MESHED = table(entry(cnf_kinds=["jkt", "x5t#S256"]), domains=("prod.example",))


def bad_proof(row: str, name: str, make: Proof, reason: Reason = Reason.DPOP_PROOF_INVALID, **changes: Any) -> Case:
    settings = {"trust": BOUND, "authorization": f"DPoP {TOKEN}"} | changes
    return Case(name=f"{row}-{name}", reason=reason, proof=make, dpop=True, **settings)


PROOFS = [
    bad_proof(
        "T-48", "bearer", lambda htu: proof(TOKEN, htu=htu), Reason.BINDING_REQUIRED, authorization=f"Bearer {TOKEN}"
    ),
    bad_proof("T-50", "none", no_proof),
    bad_proof("T-50", "two", lambda htu: f"{proof(TOKEN, htu=htu)},{proof(TOKEN, htu=htu)}"),
    bad_proof("T-50", "other-address", lambda htu: proof(TOKEN, htu=htu + "x")),
    bad_proof("T-50", "other-authority", lambda htu: proof(TOKEN, htu=htu.replace("models", "evil"))),
    bad_proof("T-50", "other-method", lambda htu: proof(TOKEN, htu=htu, htm="GET")),
    bad_proof("T-50", "old", lambda htu: proof(TOKEN, htu=htu, iat=NOW_MS // 1000 - 61)),
    bad_proof("T-50", "other-key", lambda htu: proof(TOKEN, htu=htu, by=holder("thief"))),
    bad_proof("T-50", "other-token", lambda htu: proof(good_token(), htu=htu)),
    bad_proof("T-50", "nonce", lambda htu: proof(TOKEN, htu=htu), Reason.DPOP_NONCE_REQUIRED, trust=NONCED),
    bad_proof("T-58", "replay", lambda htu: proof(TOKEN, htu=htu, jti="again"), Reason.TOKEN_REPLAYED, before=1),
]
UNAVAILABLE = Refusal(reason=Reason.KEYS_UNAVAILABLE)
STATES = [
    Case(name="T-27-no-keys", reason=Reason.KEYS_UNAVAILABLE, authorization=f"Bearer {good_token()}", keys={ISS: UNAVAILABLE}),
    Case(name="T-49-no-certificate", reason=Reason.BINDING_MISMATCH, authorization=f"Bearer {HELD}", trust=MESHED),
    Case(
        name="T-49-another", reason=Reason.BINDING_MISMATCH, authorization=f"Bearer {HELD}", trust=MESHED, certificate=leaf()
    ),
    Case(
        name="T-53-certificate", reason=Reason.TRUST_DOMAIN_UNKNOWN, authorization=f"Bearer {good_token()}",
        certificate=CERTIFICATE,
    ),
    Case(
        name="T-54-ca", reason=Reason.CERTIFICATE_INVALID, authorization=f"Bearer {good_token()}", trust=MESHED,
        certificate=leaf(ca=True),
    ),
    *(
        Case(name=f"T-57-{target}", reason=reason, authorization=f"Bearer {good_token(sid='s1')}", locks=lock_on(target))
        for target, reason in test_tokens.LOCKS.items()
        if not target.startswith("agent:")
    ),
    Case(
        name="T-57-serial", reason=Reason.CERTIFICATE_REVOKED, authorization=f"Bearer {good_token()}", trust=MESHED,
        certificate=CERTIFICATE,
        locks=lock_on(f"serial:CN=ca#{x509.load_der_x509_certificate(CERTIFICATE).serial_number}"),
    ),
]  # fmt: skip


def of_workload(name: str, compact: str, reason: Reason | None, **changes: Any) -> Case:
    return Case(
        **{
            "name": name, "reason": reason, "authorization": f"Bearer {compact}", "trust": test_workload_tokens.TRUST,
            "keys": test_workload_tokens.KEYS,
        }
        | changes
    )  # fmt: skip


LIVE = {"trust": test_workload_tokens.LIVE}
YES = test_workload_tokens.GOOD_REVIEW
WORKLOADS = [
    *(of_workload(f"account-{name}", *case) for name, case in test_workload_tokens.ACCOUNTS.items()),
    *(of_workload(f"svid-{name}", *case) for name, case in test_workload_tokens.SVIDS.items()),
    of_workload(
        "T-55-recreated", workloads.account_token(), Reason.SUBJECT_RECREATED, trust=test_workload_tokens.RECORDED
    ),
    of_workload(
        "T-55-gone", workloads.account_token(), Reason.WORKLOAD_GONE, review=Review(**YES | {"pod_uid": "x"}), **LIVE
    ),
    of_workload("T-56", workloads.account_token(), Reason.TOKEN_INACTIVE, review=Review(authenticated=False), **LIVE),
    of_workload("T-56-silent", workloads.account_token(), Reason.LIVE_CHECK_UNAVAILABLE, **LIVE),
]
OAUTH = table(entry(live_check={"by": "introspection", "url": "https://127.0.0.1/introspect", "credential": "secret"}))


def introspected(name: str, reason: Reason | None, **members: Any) -> Case:
    return Case(
        name=name,
        reason=reason,
        authorization=f"Bearer {good_token()}",
        trust=OAUTH,
        review=Introspection(members=members),
    )


INTROSPECTED = [
    introspected("T-56-revoked", Reason.TOKEN_INACTIVE, active=False),
    introspected("T-56-truthy", Reason.TOKEN_INACTIVE, active="true"),
    introspected("T-56-for-others", Reason.TOKEN_INACTIVE, active=True, aud="another"),
    introspected("T-56-another-subject", Reason.TOKEN_INACTIVE, active=True, sub="eve@example.com"),
    introspected("T-56-over", Reason.TOKEN_INACTIVE, active=True, exp=NOW_MS // 1000 - 30),
    Case(
        name="T-56-no-answer", reason=Reason.LIVE_CHECK_UNAVAILABLE, authorization=f"Bearer {good_token()}", trust=OAUTH
    ),
    introspected("good-introspected", None, active=True, aud=["portcullis"], sub="alice@example.com"),
]
GOOD = [
    *(Case(name=f"good-{alg}", reason=None, authorization=f"Bearer {good_token(alg)}") for alg in ALGS),
    Case(name="good-dpop", reason=None, authorization=f"DPoP {TOKEN}", trust=BOUND, proof=lambda htu: proof(TOKEN, htu=htu)),
    Case(
        name="good-nonce", reason=None, authorization=f"DPoP {TOKEN}", trust=NONCED,
        proof=lambda htu: proof(TOKEN, htu=htu, nonce=NONCE),
    ),
    Case(name="good-mtls", reason=None, authorization=f"Bearer {HELD}", trust=MESHED, certificate=CERTIFICATE),
    of_workload("good-account", workloads.account_token(), None),
    of_workload("good-live-account", workloads.account_token(), None, review=Review(**YES), **LIVE),
    of_workload("good-svid", workloads.svid_token(), None),
]  # fmt: skip
CASES = [*map(from_attack, test_tokens.ATTACKS), *PROOFS, *STATES, *WORKLOADS, *INTROSPECTED, *GOOD]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back: the reason (None: let in), the status, and the challenge."""

    reason: str | None
    status: int | str
    headers: Mapping[str, str] = field(default_factory=dict)


Door = Callable[[Case, str | None], Awaitable[Reply]]


def sendable(case: Case) -> bool:
    """Whether a header can hold the credential at all: the transports refuse the rest before us."""
    text = case.authorization or ""
    return text.isascii() and text.isprintable() and text == text.strip() and len(text) < 16_000


async def judged(
    door: Door,
    switch: Switch,
    path: str,
    cases: list[Case],
    status: Callable[[Reason], int | str],
    *,
    told: Callable[[Refusal, str], Iterable[Header]] = lambda refusal, nonce: challenge(refusal, nonce=nonce),
) -> list[str]:
    """Return the cases that this door does not answer as it must; `told` says which headers go with a refusal."""
    wrong = []
    for case in cases:
        switch.set(case)
        text = case.proof(ORIGIN + path)
        for _ in range(case.before):
            await door(case, text)
        reply = await door(case, text)
        wanted = Reply(reason=None, status="OK")
        if case.reason is not None:
            refusal = Refusal(reason=case.reason, dpop=case.dpop)
            nonce = switch.nonce() if case.reason is Reason.DPOP_NONCE_REQUIRED else ""
            headers = dict(told(refusal, nonce))
            wanted = Reply(reason=case.reason.value, status=status(case.reason), headers=headers)
        if reply != wanted:
            wrong.append(f"{case.name}: {reply} is not {wanted}")
    return wrong


def asked_again(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in ("www-authenticate", "dpop-nonce")}


# -- the PDP ---------------------------------------------------------------------------------------------------------


def test_every_row_is_refused_by_the_pdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        switch, shown = Switch(), SimpleNamespace(der=None)
        monkeypatch.setattr(
            interceptors, "_peer", lambda _context: PeerCertificate.from_der(shown.der) if shown.der else None
        )
        async with running_pdp(tmp_path) as pdp:
            pdp.app.gate._authenticator, pdp.app.gate._origin = switch, ORIGIN  # type: ignore[assignment]
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            question = decision_pb2.EvaluateRequest(
                question=decision_pb2.Question(action="endpoint.invoke", resource="endpoint/fraud", supports_all=True)
            )

            async def door(case: Case, text: str | None) -> Reply:
                metadata = [("authorization", case.authorization)] if case.authorization is not None else []
                metadata += [("dpop", text)] if text is not None else []
                shown.der = case.certificate
                try:
                    await stub.Evaluate(question, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    if detail(error).reason == Reason.NO_GRANT.value:
                        return Reply(reason=None, status="OK")  # let in; what a stranger may is another matter
                    headers = {name: str(value) for name, value in error.trailing_metadata() or ()}
                    return Reply(reason=detail(error).reason, status=error.code().name, headers=asked_again(headers))
                return Reply(reason=None, status="OK")

            cases = [case for case in CASES if sendable(case)]
            assert await judged(door, switch, PDP_PATH, cases, lambda reason: MEANINGS[reason].grpc) == []

    asyncio.run(story())


# -- the sidecar -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Sockets:
    switch: Switch
    http: Path
    channel: grpc.aio.Channel


@contextlib.asynccontextmanager
async def agent(directory: Path) -> AsyncIterator[Sockets]:
    switch, decider = Switch(), Decider()
    world = SimpleNamespace(world=SimpleNamespace(locks=LockSet.EMPTY))
    identify = Identifier(switch, world, certificate_suffices=False)  # type: ignore[arg-type]
    gate = Gate(table=TABLE, identify=identify, decider=decider, reveal=True, origin=ORIGIN)
    authz = AuthzServer(gate, directory / "a")
    await authz.start()
    server = grpc.aio.server()
    auth_grpc.add_AuthorizationServicer_to_server(AuthorizationService(gate), server)
    rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.0)
    service = ExternalProcessorService(gate=gate, rechecker=rechecker, notes=decider, time=Clock())
    proc_grpc.add_ExternalProcessorServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{directory / 'g'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{directory / 'g'}") as channel:
        try:
            yield Sockets(switch=switch, http=directory / "a", channel=channel)
        finally:
            await authz.stop()
            await server.stop(None)


def fields_of(case: Case, text: str | None) -> list[tuple[str, str]]:
    found = [("authorization", case.authorization)] if case.authorization is not None else []
    found += [("dpop", text)] if text is not None else []
    if case.certificate is not None:
        found.append(("x-forwarded-client-cert", f'Hash={"0" * 64};Cert="{quote(pem(case.certificate), safe="")}"'))
    return [(name, value) for name, value in found if value is not None]


def pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def http_status(reason: Reason) -> int:
    return MEANINGS[reason].http


def run_agent(directory: Path, story: Callable[[Sockets], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with agent(directory) as sockets:
            await story(sockets)

    asyncio.run(inside())


def test_every_row_is_refused_by_ext_authz_over_http(tmp_path: Path) -> None:
    async def story(sockets: Sockets) -> None:
        reader, writer = await asyncio.open_unix_connection(str(sockets.http))

        async def door(case: Case, text: str | None) -> Reply:
            lines = [f"POST {UNARY} HTTP/1.1", "host: x", "content-length: 0", "x-pdp-route: oip.infer"]
            lines += [f"{name}: {value}" for name, value in fields_of(case, text)]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = (line.split(": ", 1) for line in head[1:-2])
            headers = {name.lower(): value for name, value in fields}
            body = await reader.readexactly(int(headers["content-length"]))
            if head[0].split(" ")[1] == "200":
                return Reply(reason=None, status="OK")
            return Reply(
                reason=json.loads(body)["reason"], status=int(head[0].split(" ")[1]), headers=asked_again(headers)
            )

        cases = [case for case in CASES if sendable(case)]
        assert await judged(door, sockets.switch, UNARY, cases, http_status) == []
        writer.close()

    run_agent(tmp_path, story)


def as_the_agent_reads(case: Case) -> Case:
    """A header that no transport carries is refused by the agent before it is anybody's credential (EX-13)."""
    text = case.authorization or ""
    if text.isascii() and text.isprintable():
        return case
    return replace(case, reason=Reason.BAD_REQUEST)


def denied_status(reason: Reason) -> int:
    return 403 if reason is Reason.BAD_REQUEST else http_status(reason)


def test_every_row_is_refused_by_ext_authz_over_grpc(tmp_path: Path) -> None:
    async def story(sockets: Sockets) -> None:
        stub = auth_grpc.AuthorizationStub(sockets.channel)

        async def door(case: Case, text: str | None) -> Reply:
            request = auth.CheckRequest()
            http = request.attributes.request.http
            http.method, http.path = "POST", UNARY
            for name, value in fields_of(case, text):
                if name != "x-forwarded-client-cert":
                    http.header_map.headers.add(key=name, raw_value=value.encode())
            if case.certificate is not None:
                request.attributes.source.certificate = quote(pem(case.certificate), safe="")
            answer = await stub.Check(request)
            if answer.status.code == 0:
                return Reply(reason=None, status="OK")
            denied = answer.denied_response
            headers = {item.header.key: item.header.value for item in denied.headers}
            return Reply(
                reason=json.loads(denied.body)["reason"], status=denied.status.code, headers=asked_again(headers)
            )

        cases = [as_the_agent_reads(case) for case in CASES]
        assert await judged(door, sockets.switch, UNARY, cases, denied_status) == []

    run_agent(tmp_path, story)


def test_every_row_is_refused_by_ext_proc(tmp_path: Path) -> None:
    async def story(sockets: Sockets) -> None:
        stub = proc_grpc.ExternalProcessorStub(sockets.channel)

        async def door(case: Case, text: str | None) -> Reply:
            call = stub.Process(metadata=(("x-pdp-route", "oip.generate_stream"),))
            message = proc.ProcessingRequest()
            for name, value in [(":method", "POST"), (":path", STREAM), *fields_of(case, text)]:
                message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
            await call.write(message)
            answer = await call.read()
            call.cancel()
            if answer.WhichOneof("response") == "request_headers":
                return Reply(reason=None, status="OK")
            told = answer.immediate_response
            headers = {one.header.key: one.header.raw_value.decode() for one in told.headers.set_headers}
            return Reply(reason=json.loads(told.body)["reason"], status=told.status.code, headers=asked_again(headers))

        cases = [as_the_agent_reads(case) for case in CASES]
        assert await judged(door, sockets.switch, STREAM, cases, denied_status) == []

    run_agent(tmp_path, story)


def test_every_row_of_the_table_and_every_profile_is_among_the_cases() -> None:
    told = {case.name for case in CASES}
    for number in (*range(1, 26), 26, 27, 28, *range(30, 59)):
        assert any(f"T-{number:02}" in name for name in told), number
    # T-29 is a fault of the library, in `test_tokens`.
    assert {name for name in told if name.startswith("good-")} >= {
        "good-dpop",
        "good-mtls",
        "good-account",
        "good-svid",
    }
