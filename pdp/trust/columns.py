"""Signatures as stores keep them: one byte string, read back leniently, since whatever is damaged will not verify."""

from collections.abc import Sequence
from typing import Final

from pdp.errors import BadRequestError
from pdp.limits import MAX_SIGNATURES
from pdp.model import canonical
from pdp.trust.entry import Signature

_SIGNATURE_BYTES: Final = 256


def pack_signatures(signatures: Sequence[Signature]) -> bytes:
    """Return the column that holds signatures."""
    return canonical.dumps([[item.key_id, item.signature.hex()] for item in signatures])


def unpack_signatures(raw: object) -> tuple[Signature, ...]:
    """Return the signatures of a column; a damaged one holds none, and the verifier refuses what it should sign."""
    if not isinstance(raw, bytes) or len(raw) > MAX_SIGNATURES * _SIGNATURE_BYTES:
        return ()
    try:
        pairs = canonical.loads(raw)
        return tuple(Signature(key_id=str(name), signature=bytes.fromhex(text)) for name, text in pairs)
    except (BadRequestError, TypeError, ValueError):
        return ()
