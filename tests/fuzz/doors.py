"""What must hold for any bytes at a door: a token, a signed entry, a body, a request target. As `targets`, which names them all.

A fuzzer never guesses a signature, so tokens and entries are truly signed here: what an issuer or
a publisher gone wrong may send.
"""

from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Final
from urllib.parse import quote

from pdp.errors import BadRequestError
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.trust.entry import EMPTY, HeartbeatBody, SignedEntry, SnapshotHeader, VerifiedEntry, entry_message
from pdp.trust.keys import RootFile
from pdp.trust.verifier import Refused, TrustVerifier
from pdp.world import FoldError, empty_world, fold
from sidecar.bodies import BadBody, Content, read, strict_json, written
from sidecar.messages import BadMessageError, Framer
from sidecar.messages import read as read_message
from sidecar.routes import Body, kserve_v1, mlflow, oip, oip_grpc, openai
from sidecar.target import BadTarget, canonical
from tests.support.logs import START_MS, TENANT, Authority
from tests.support.tokens import forge, judge, keys_of, signer

_READ: Final = [row for row in chain(kserve_v1.ROWS, mlflow.ROWS, oip.ROWS, openai.ROWS) if row.body is not Body.UNREAD]
_FORM: Final = {"content-type": "multipart/form-data; boundary=x"}
_JSON: Final = {"content-type": "application/json"}


def token(data: bytes) -> None:
    """Read an `Authorization` value, then a header and claims (parted by a zero byte) under a signature that holds."""
    assert isinstance(judge(data.decode("latin-1")), Refusal)  # whoever made it up has no key of the issuer
    header, _, claims = data.partition(b"\0")
    ours, strange = signer("EdDSA"), signer("EdDSA", "strange")
    signed = judge(f"Bearer {forge(header, claims, ours)}", keys=keys_of(ours))
    assert isinstance(signed, Refusal | VerifiedIdentity)
    assert isinstance(judge(f"Bearer {forge(header, claims, strange)}", keys=keys_of(ours)), Refusal)


@cache
def _trust() -> tuple[Authority, TrustVerifier]:
    authority = Authority()
    return authority, authority.verifier()


def envelope(data: bytes) -> None:
    """Read a header and a payload, parted by a zero byte, under a signature that holds; and either as every other envelope."""
    authority, verifier = _trust()
    header, _, payload = data.partition(b"\0")
    unsigned = SignedEntry(header=header, payload=payload, signatures=())
    assert isinstance(verifier.verify_entry(unsigned, head=EMPTY, now_ms=START_MS), Refused)
    signed = SignedEntry(header=header, payload=payload, signatures=(authority.publish.sign(entry_message(header)),))
    entry = verifier.verify_entry(signed, head=EMPTY, now_ms=START_MS)
    if isinstance(entry, VerifiedEntry):
        assert entry.header.encode() == header
        with suppress(FoldError):
            assert fold(empty_world(TENANT), entry).seq == 1
    for decode in (HeartbeatBody.decode, SnapshotHeader.decode, RootFile.parse):
        with suppress(BadRequestError):
            decode(data)


def body(data: bytes) -> None:
    """Read a body by every route that reads one: as JSON, as a form, and as the messages of a gRPC call."""
    value = strict_json(data)
    assert isinstance(value, BadBody) or strict_json(written(value)) == value
    for row in _READ:
        assert isinstance(read(row, data, _FORM if row.body is Body.MULTIPART else _JSON), Content | BadBody)
    with suppress(BadMessageError):
        for message in Framer().feed(data):
            assert len(message) < len(data)
    for row in oip_grpc.ROWS:
        assert isinstance(read_message(row, data), Content | BadBody)


def target(data: bytes) -> None:
    """Read a request target: what comes out has no second spelling and no way up."""
    raw = data.decode("latin-1")
    read_as = canonical(raw)
    if isinstance(read_as, BadTarget):
        assert read_as.why
        return
    assert not {"..", "."}.intersection(read_as.path.split("/"))
    assert not set("?#%;\\").intersection(read_as.path)
    once_more = quote(read_as.path, safe="/!$&'()*+,=:@~") + ("?" + read_as.query if read_as.query else "")
    assert once_more == raw
