"""The one table of every RPC: what its caller needs, and how much it may send.

An RPC that is missing here is refused, and a test compares the table with the descriptors (FAILURE.md P10).
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pdp.limits import MAX_PACK_DEADLINE_S, MAX_PACK_RPC_BYTES, MAX_RPC_BYTES, MAX_SMALL_RPC_BYTES
from pdp.server.callers import ASK, Right, right


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How an RPC is guarded. `open` needs no credential; without a `right`, any authenticated caller may.

    `ceiling_s` bounds a unary call in seconds, whatever deadline its caller set, where `MAX_DEADLINE_S` is too short (G3).
    """

    right: Right | None = None
    limit_bytes: int = MAX_SMALL_RPC_BYTES
    open: bool = False
    ceiling_s: float | None = None


_OPEN: Final = Rule(open=True)
_AUTHENTICATED: Final = Rule()


def _rule(
    action: str, resource: str, *, limit_bytes: int = MAX_SMALL_RPC_BYTES, ceiling_s: float | None = None
) -> Rule:
    return Rule(right=right(action, resource), limit_bytes=limit_bytes, ceiling_s=ceiling_s)


RULES: Final = MappingProxyType(
    {
        "/pdp.v1.DecisionService/Evaluate": Rule(right=ASK, limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.DecisionService/EvaluateBatch": Rule(right=ASK, limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.DecisionService/EvaluateStream": Rule(right=ASK, limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.DecisionService/Watch": Rule(right=ASK, limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.DecisionService/Explain": Rule(right=ASK, limit_bytes=MAX_RPC_BYTES),
        # Who else holds what is written in the policy; what the caller itself can do, it could ask one by one.
        "/pdp.v1.DecisionService/SearchSubjects": _rule("policy.read", "policy/main"),
        "/pdp.v1.DecisionService/SearchResources": Rule(right=ASK),
        "/pdp.v1.DecisionService/SearchActions": Rule(right=ASK),
        "/pdp.v1.PolicyService/Propose": _rule(
            "policy.propose", "policy/main", limit_bytes=MAX_PACK_RPC_BYTES, ceiling_s=MAX_PACK_DEADLINE_S
        ),
        # Whether this very change may be made live, or approved, is asked again with what it touches (service/policy.py).
        "/pdp.v1.PolicyService/Activate": _rule("policy.read", "policy/main", ceiling_s=MAX_PACK_DEADLINE_S),
        "/pdp.v1.PolicyService/Approve": _rule("policy.read", "policy/main", ceiling_s=MAX_PACK_DEADLINE_S),
        "/pdp.v1.PolicyService/Reject": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/ListProposals": _rule("policy.read", "policy/main"),
        # Whether this very proposal may be tried is asked with what it touches, as for making it live.
        "/pdp.v1.PolicyService/StartTrial": _rule("policy.read", "policy/main", ceiling_s=MAX_PACK_DEADLINE_S),
        "/pdp.v1.PolicyService/EndTrial": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/ListTrials": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/ListRevisions": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/Blame": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/ListBreakGlass": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/ReviewBreakGlass": _rule("policy.read", "policy/main"),
        "/pdp.v1.PolicyService/SignOff": _rule("policy.read", "policy/main"),
        # Whether this role may be asked for is asked with what it touches; one's own requests are one's own to see.
        "/pdp.v1.PolicyService/RequestAccess": Rule(right=ASK),
        "/pdp.v1.PolicyService/ListAccess": Rule(right=ASK),
        "/pdp.v1.PolicyService/Get": _rule("policy.read", "policy/main"),
        "/pdp.v1.AssetService/Register": _rule("asset.register", "asset/all", limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.AssetService/Retire": _rule("asset.register", "asset/all", limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.AssetService/Get": _rule("asset.read", "asset/all"),
        "/pdp.v1.AssetService/List": _rule("asset.read", "asset/all"),
        "/pdp.v1.LockService/Lock": _rule("lock.add", "lock/all"),
        "/pdp.v1.LockService/Unlock": _rule("lock.remove", "lock/all"),
        "/pdp.v1.LockService/List": _rule("lock.read", "lock/all"),
        "/pdp.v1.AuditService/Append": _rule("audit.append", "audit/all", limit_bytes=MAX_RPC_BYTES),
        "/pdp.v1.AuditService/Read": _rule("audit.read", "audit/all"),
        "/pdp.v1.AuditService/Query": _rule("audit.read", "audit/all"),
        "/pdp.v1.ReplicationService/Subscribe": _rule("replica.subscribe", "replica/all"),
        "/pdp.v1.ReplicationService/ListReplicas": _rule("replica.read", "replica/all"),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _AUTHENTICATED,
        "/grpc.health.v1.Health/Check": _OPEN,
        "/grpc.health.v1.Health/Watch": _OPEN,
    }
)
