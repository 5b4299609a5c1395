"""Segmentation starts at the workload of whoever is meant: an enforcement point never lends its own to those it asks for."""

import asyncio
from typing import Any

import pytest

from pdp.identity.certificates import PeerCertificate
from pdp.identity.types import VerifiedIdentity
from pdp.model.request import Question
from pdp.replica import Replica
from pdp.server.callers import Caller
from pdp.server.grpc.decision import Reader
from pdp.v1 import decision_pb2
from pdp.world import empty_world
from tests.support.certificates import SPIFFE, leaf
from tests.support.tokens import good_token, judge, table
from tests.support.worlds import TENANT, verifier

OWN = f"Bearer {good_token(jti='own')}"
FOREIGN = f"Bearer {good_token(jti='foreign')}"


class Issuer:
    """Stands for the authenticator: what the credential inside a question turns out to be."""

    async def authenticate(self, authorization: str, peer: None, **_: Any) -> VerifiedIdentity:
        assert (authorization, peer) == (FOREIGN, None)
        return identity(FOREIGN, None)


class Rights:
    """Stands for the gate: this caller may assert whatever it likes."""

    async def authorise(self, *_: Any) -> None:
        return None


def identity(authorization: str, peer: PeerCertificate | None) -> VerifiedIdentity:
    found = judge(authorization, trust=table(domains=("prod.example",)), peer=peer)
    assert isinstance(found, VerifiedIdentity), found
    return found


def start(subject: decision_pb2.Subject) -> str:
    """Return where an access starts that a caller with a workload of its own asks about."""
    peer = PeerCertificate.from_der(leaf())
    assert isinstance(peer, PeerCertificate), peer
    caller = Caller(identity=identity(OWN, peer), authorization=OWN, peer=peer)
    reader = Reader(
        gate=Rights(),  # type: ignore[arg-type]
        authenticator=Issuer(),  # type: ignore[arg-type]
        replica=Replica(verifier=verifier(), world=empty_world(TENANT)),
    )
    message = decision_pb2.Question(subject=subject, action="endpoint.invoke", resource="endpoint/digits")
    question = asyncio.run(reader.read(message, caller))
    assert isinstance(question, Question)
    return str(question.workload)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (decision_pb2.Subject(), f"workload:{SPIFFE}"),
        (decision_pb2.Subject(credential=OWN), f"workload:{SPIFFE}"),
        (decision_pb2.Subject(credential=FOREIGN), "None"),
        (decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:eve@x")), "None"),
    ],
    ids=["the caller itself", "its own credential", "the credential of another", "a subject it asserts"],
)
def test_an_access_starts_where_its_own_subject_stands(subject: decision_pb2.Subject, expected: str) -> None:
    assert start(subject) == expected
