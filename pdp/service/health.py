"""Whether this PDP should be asked, where it stands, and what about it is weaker than it could be."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from pdp.limits import MAX_CLOCK_SKEW_S, READY_STALENESS_S
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.service.audit import AuditTrail


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The readiness page. `staleness_s` is None before the first heartbeat; `degradations` says what is weakened.

    `used_proofs` says who knows a used DPoP proof again; empty where no issuer's tokens need one.
    """

    ready: bool
    tenant: str
    world_seq: int
    head: str
    revision: str
    staleness_s: float | None
    last_error: str
    refused: int
    """Entries, snapshots and heartbeats of the log that did not verify, since the start."""
    degradations: tuple[str, ...]
    audit: dict[str, Any]
    used_proofs: str

    def plain(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return asdict(self)


class Health:
    """Reports on this process.

    `standing` are the degradations that hold from start to end (FAILURE.md P13), `more` those that come and go, and `unfit`
    says why it should not be asked although its world is fresh (F30).
    """

    def __init__(
        self,
        *,
        replica: Replica,
        trail: AuditTrail,
        clock: Clock,
        standing: Sequence[str],
        more: Callable[[], Sequence[str]] = tuple,
        unfit: Callable[[], str] = str,
        used_proofs: str = "",
    ) -> None:
        self._replica = replica
        self._trail = trail
        self._clock = clock
        self._standing = tuple(standing)
        self._more = more
        self._unfit = unfit
        self._used_proofs = used_proofs
        self.draining = False

    @property
    def ready(self) -> bool:
        """True while a fresh world with a policy is held, answers are given, and we are not going away."""
        fresh = self._replica.world.policy is not None and self.staleness_s <= READY_STALENESS_S
        return fresh and not self.draining and not self._unfit()

    @property
    def staleness_s(self) -> float:
        """Age of the newest proof of freshness, in seconds; infinite before the first."""
        return self._replica.staleness_s(now_ms=self._clock.now_ms(), mono_s=self._clock.mono_s())

    @property
    def refused(self) -> int:
        """How much of what the log carried was refused since the start."""
        return sum(count for name, count in self._replica.counters.items() if name.startswith("refused_"))

    def report(self) -> Report:
        """Return the state of now."""
        world, stale_s = self._replica.world, self.staleness_s
        return Report(
            ready=self.ready,
            tenant=world.tenant,
            world_seq=world.seq,
            head=world.head.hex(),
            revision=world.revision,
            staleness_s=round(stale_s, 3) if isfinite(stale_s) else None,
            last_error=self._replica.last_error or self._trail.last_error,
            refused=self.refused,
            degradations=tuple(self._degradations(stale_s)),
            audit={"records": self._trail.link.n, "head": self._trail.link.digest, "lost": self._trail.lost},
            used_proofs=self._used_proofs,
        )

    def _degradations(self, stale_s: float) -> list[str]:
        found = [*self._standing, *self._more()]
        found.extend(one.told(self._clock.now_ms()) for one in self._replica.world.glass)
        if self.draining:
            found.append("shutting down")
        if self._unfit():
            found.append(self._unfit())
        if stale_s > READY_STALENESS_S:
            found.append("the world is stale: no heartbeat over what is held")
        if self._trail.degraded:
            found.append(self._trail.degraded)
        if self._trail.lost:
            found.append(f"{self._trail.lost} records could not be written to the decision log")
        skew_s = self._replica.skew_s(now_ms=self._clock.now_ms(), mono_s=self._clock.mono_s())
        if abs(skew_s) > MAX_CLOCK_SKEW_S:
            found.append(f"the local clock is {skew_s:.0f} s off signed time")
        return found
