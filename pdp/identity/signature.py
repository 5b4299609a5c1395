"""The one place where a signature is checked: one key as an object, its one algorithm, the bytes that the gate read.

PyJWT's algorithms are called directly (PR-5): nothing is guessed from text, no second parser reads the token, and no
option has a default that could decide.
"""

from typing import Final

from jwt.algorithms import get_default_algorithms

from pdp.errors import Reason
from pdp.identity.gate import ParsedToken
from pdp.identity.keyset import ALGORITHMS, VerificationKey
from pdp.identity.types import Refusal

# Only asymmetric algorithms: HS256 does not exist here, whatever a header says (T-15, CVE-2017-11424).
_ALGORITHMS: Final = {name: algorithm for name, algorithm in get_default_algorithms().items() if name in ALGORITHMS}


def check_signature(parsed: ParsedToken, key: VerificationKey) -> Refusal | None:
    """Refuse unless the signature is this key's (T-25). Every surprise of the backend is a refusal (T-29, ER-2)."""
    try:
        algorithm = _ALGORITHMS[key.alg]
        public = algorithm.prepare_key(key.public)  # checks the kind of key, and its curve
        weak = algorithm.check_key_length(public)  # a second look after JW-4; the library's own default only warns
        good = not weak and algorithm.verify(parsed.signing_input, public, parsed.signature)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the backend boundary; a panic in Rust is no `Exception` (ER-2)
        return Refusal(reason=Reason.VERIFIER_ERROR, detail=type(error).__name__)
    # `is True`: a truthy surprise is no proof.
    return None if good is True else Refusal(reason=Reason.SIGNATURE_INVALID)
