"""What a refused caller is told in HTTP: the `WWW-Authenticate` of each refusal, by the table of IDENTITY.md section 5.

Never a description, a claim or a key id (ER-1). Source: RFC 6750 section 3, RFC 9449 sections 7.1 and 9.
"""

from typing import Final

from pdp.errors import MEANINGS, Reason
from pdp.identity.proof import PROOF_ALGORITHMS
from pdp.identity.types import Refusal

Header = tuple[str, str]

NONCE_HEADER: Final = "dpop-nonce"
_UNAUTHENTICATED: Final = 401
_ALGS: Final = f'algs="{" ".join(PROOF_ALGORITHMS)}"'
_DPOP_ERRORS: Final = {
    Reason.DPOP_PROOF_INVALID: "invalid_dpop_proof",
    Reason.DPOP_NONCE_REQUIRED: "use_dpop_nonce",
    Reason.TOKEN_REPLAYED: "invalid_dpop_proof",
}


def challenge(refusal: Refusal, *, nonce: str = "") -> tuple[Header, ...]:
    """Return the headers that go with a refusal; none unless it is a 401.

    Args:
        refusal: the refused credential.
        nonce: the nonce for the caller's next DPoP proof; empty if none are issued.
    """
    if MEANINGS[refusal.reason].http != _UNAUTHENTICATED:
        return ()
    if refusal.reason is Reason.CREDENTIAL_MISSING:
        return (
            ("www-authenticate", "Bearer"),
        )  # no error: nothing was wrong with what was not sent (RFC 6750 section 3.1)
    if not refusal.dpop:
        return (("www-authenticate", 'Bearer error="invalid_token"'),)
    error = _DPOP_ERRORS.get(refusal.reason, "invalid_token")
    asked = (("www-authenticate", f'DPoP error="{error}", {_ALGS}'),)
    return (*asked, (NONCE_HEADER, nonce)) if nonce and refusal.reason is Reason.DPOP_NONCE_REQUIRED else asked
