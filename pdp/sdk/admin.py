"""Administration over gRPC: policy, assets, locks, audit, replicas. The command line and the demo stand on it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pdp.errors import BadNameError, BadRequestError
from pdp.sdk import _admin_core as core
from pdp.sdk._admin_core import (
    Activation,
    Asset,
    Assets,
    ChainRecord,
    Locked,
    Locks,
    Policy,
    PolicyRow,
    Proposal,
    Receipt,
    Replica,
    Replicas,
)
from pdp.sdk._core import Core
from pdp.sdk._settings import Settings
from pdp.sdk._transport import Transport
from pdp.sdk.errors import BadQuestion
from pdp.sdk.values import AttributeValue
from pdp.signals.locks import Lock, LockKind, LockTarget
from pdp.v1 import asset_pb2, audit_pb2, lock_pb2, policy_pb2, replication_pb2

__all__ = [
    "Activation",
    "AdminClient",
    "Asset",
    "Assets",
    "ChainRecord",
    "Lock",
    "LockKind",
    "LockTarget",
    "Locked",
    "Locks",
    "Policy",
    "PolicyRow",
    "Proposal",
    "Receipt",
    "Replica",
    "Replicas",
]


class AdminClient:
    """Administers a PDP. Arguments, environment and rules as in `Client`; what a call may do, the policy decides.

    Every method raises `PdpError`: `NotPermitted` where the policy refuses, `Conflict` where another change came first.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | Path | Callable[[], str] | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        timeout_s: float | None = None,
    ) -> None:
        settings = Settings.resolve(server, token=token, ca=ca, cert=cert, key=key, timeout_s=timeout_s)
        self._core = Core(settings)
        self._transport = Transport(self._core)

    # Policy.

    def propose(self, files: Mapping[str, bytes], *, message: str = "") -> Proposal:
        """Have a pack checked whole and kept as a proposal.

        Args:
            files: content by path relative to the pack.
            message: why, for the log.

        Raises:
            PolicyRefused: the pack has errors; `findings` holds every one.
        """
        told = self._transport.unary(core.PROPOSE, core.pack_message(files, message))
        return Proposal(
            proposal_id=told.proposal_id,
            warnings=tuple(told.warnings),
            rows_added=told.rows_added,
            rows_removed=told.rows_removed,
            base_seq=told.base_seq,
        )

    def activate(self, proposal_id: str) -> Activation:
        """Make a proposal the live policy.

        Raises:
            Conflict: the world has changed since it was proposed.
        """
        told = self._transport.unary(core.ACTIVATE, policy_pb2.ActivateRequest(proposal_id=proposal_id))
        return Activation(world_seq=told.world_seq, revision=told.revision)

    def policy(self) -> Policy:
        """Return the live policy."""
        return core.policy(self._transport.unary(core.GET_POLICY, policy_pb2.GetPolicyRequest()))

    # Assets.

    def register(self, name: str, attributes: Mapping[str, AttributeValue]) -> int:
        """Register an asset, or change its attributes; return the world that holds it.

        Args:
            name: `<type>/<path>[@<version>]`.
            attributes: `environment`, `segment`, `sensitivity`, … without the prefix `resource.`.
        """
        try:
            message = core.asset_message(name, attributes)
        except (BadNameError, BadRequestError) as error:
            raise BadQuestion(error.reason, error.message) from error
        return self._transport.unary(core.REGISTER, asset_pb2.RegisterRequest(assets=[message])).world_seq

    def asset(self, name: str) -> Asset:
        """Return one asset.

        Raises:
            NotFound: no asset of that name is registered.
        """
        return core.asset(self._transport.unary(core.GET_ASSET, asset_pb2.GetAssetRequest(name=name)).asset)

    def assets(self, pattern: str = "") -> Assets:
        """Return the assets whose names match `pattern`; all of them if it is empty."""
        told = self._transport.unary(core.LIST_ASSETS, asset_pb2.ListAssetsRequest(pattern=pattern))
        return Assets(assets=tuple(core.asset(message) for message in told.assets), world_seq=told.world_seq)

    # Locks.

    def lock(self, target: LockTarget, *, reason: str, end_ms: int = 0, wait_all: bool = False) -> Locked:
        """Lock out what `target` names, from now on.

        Args:
            target: whom or what.
            reason: why, for people.
            end_ms: when the lock ends by itself, milliseconds since the epoch; 0: when it is removed.
            wait_all: return only when every connected enforcement point holds it, or the deadline is near.
        """
        message = lock_pb2.LockRequest(
            target=core.target_message(target), reason=reason, end_ms=end_ms, wait_all=wait_all
        )
        told = self._transport.unary(core.LOCK, message)
        return Locked(lock=core.lock(told.lock), receipt=core.receipt(told.receipt))

    def unlock(self, lock_id: str) -> int:
        """Remove a lock; return the world without it.

        Raises:
            NotFound: there is no such lock.
        """
        return self._transport.unary(core.UNLOCK, lock_pb2.UnlockRequest(id=lock_id)).world_seq

    def locks(self) -> Locks:
        """Return every lock."""
        told = self._transport.unary(core.LIST_LOCKS, lock_pb2.ListLocksRequest())
        return Locks(locks=tuple(core.lock(message) for message in told.locks), world_seq=told.world_seq)

    # Audit.

    def audit_records(
        self, *, chain: str = "", since_ms: int = 0, last: int = 0, follow: bool = False
    ) -> Iterator[ChainRecord]:
        """Yield records of all chains the PDP holds, oldest first.

        Args:
            chain: one chain only.
            since_ms: nothing older, milliseconds since the epoch.
            last: the newest so many; 0: all.
            follow: go on with new records until the iterator is closed; only then is there no deadline.
        """
        message = audit_pb2.ReadRequest(chain=chain, since_ms=since_ms, follow=follow, last=last)
        timeout_s = None if follow else self._core.settings.timeout_s
        for told in self._transport.stream(core.READ_AUDIT, message, timeout_s=timeout_s):
            yield ChainRecord(chain=told.chain, record=told.record)

    # Replicas.

    def replicas(self) -> Replicas:
        """Return the enforcement points the PDP knows."""
        told = self._transport.unary(core.LIST_REPLICAS, replication_pb2.ListReplicasRequest())
        return Replicas(replicas=core.replicas(told.replicas), head_seq=told.head_seq)

    def close(self) -> None:
        """Close the connection. A closed client refuses further calls."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._core.check_usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
