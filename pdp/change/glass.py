"""Break-glass: administration when the policy itself is what is broken, or nobody who may is there.

Two distinct root keys sign a *statement*: who gets which role where, until when, and why, after which head of the log. The
statement and its signatures stand in the policy entry that carries it out, so that the log proves who opened the glass, and
nobody can replay it after another head. It is short, it shows in the degradations of every PDP until somebody else has
reviewed it, and it touches no audit: what is done under it is recorded like everything else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from pdp.errors import BadRequestError
from pdp.limits import MAX_BREAK_GLASS_S
from pdp.model import canonical
from pdp.model.names import Principal
from pdp.trust.keys import PublicKey

KEYS_NEEDED: Final = 2
_DOMAIN: Final = b"portcullis/break-glass/1\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the keys sign. `restore_seq` also brings back the policy of that entry (0: not); `head` is the log's, in hex."""

    tenant: str
    who: str
    role: str
    environment: str
    start_ms: int
    end_ms: int
    reason: str
    head: str
    restore_seq: int = 0

    def __post_init__(self) -> None:
        Principal.parse(self.who)
        if not self.reason.strip():
            raise BadRequestError("say why the glass is broken")
        if not 0 < self.end_ms - self.start_ms <= MAX_BREAK_GLASS_S * 1000:
            raise BadRequestError(f"the glass is broken for at most {MAX_BREAK_GLASS_S / 60:.0f} minutes")

    def message(self) -> bytes:
        """Return the exact bytes to sign."""
        return _DOMAIN + canonical.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A glass that was broken at entry `seq` and that nobody has reviewed yet."""

    seq: int
    who: str
    role: str
    environment: str
    end_ms: int
    reason: str

    @classmethod
    def of(cls, seq: int, statement: Mapping[str, Any]) -> Self:
        """Return what a statement opened."""
        names = ("who", "role", "environment", "end_ms", "reason")
        return cls(seq=seq, **{name: statement[name] for name in names})

    def told(self, now_ms: int) -> str:
        """Return it in plain words."""
        state = "holds" if now_ms < self.end_ms else "held"
        return (
            f"break-glass at entry {self.seq}: {self.who} {state} {self.role} in {self.environment} "
            f"({self.reason}); not reviewed: `pdp break-glass review {self.seq}`"
        )


def count_signers(
    statement: Statement, signatures: Mapping[str, bytes], keys: Mapping[str, PublicKey], *, seq: int
) -> int:
    """Return how many distinct root keys truly signed `statement`, each valid at its time.

    INVARIANT: distinct by key material, as the ids are computed from it: one key under two names is one.
    """
    message = statement.message()
    return sum(
        key.signed(message, signatures[found]) and key.valid(time_ms=statement.start_ms, seq=seq)
        for found, key in keys.items()
        if found in signatures
    )
