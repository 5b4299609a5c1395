"""The first look at a mutant of `pdp.identity`: all bad tokens, put to the `Authenticator` itself, not through a server."""

import asyncio
from typing import Any

from pdp.identity.certificates import PeerCertificate
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal
from tests.attacks import test_token_doors as doors


def every_case_comes_out_as_it_must() -> bool:
    """Tell whether every case of `tests/attacks/test_token_doors.py` is answered as the table says."""
    return asyncio.run(_judge_all())


async def _judge_all() -> bool:
    for case in doors.CASES:
        found = await _outcome(case)
        if found not in ((case.reason, case.dpop), case.reason):
            return False
    return True


async def _outcome(case: doors.Case) -> Any:
    door = case.authenticator()
    peer = PeerCertificate.from_der(case.certificate) if case.certificate else None
    if isinstance(peer, Refusal):
        return peer.reason
    text = case.proof(doors.ORIGIN + doors.UNARY)
    request = BoundRequest(method="POST", uri=doors.ORIGIN + doors.UNARY, proof=text)
    for _ in range(case.before + 1):
        found = await door.authenticate(case.authorization, peer, locks=case.locks, request=request)
    return (found.reason, found.dpop) if isinstance(found, Refusal) else (None, False)
