"""Every service of the gRPC door, put together."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from pdp.adapters.telemetry import Metrics
from pdp.identity.types import VerifiedIdentity
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.server.callers import CALLER, RENEW, Gate
from pdp.server.discretion import Discretion
from pdp.server.grpc.asset import AssetServicer
from pdp.server.grpc.audit import AuditServicer
from pdp.server.grpc.decision import DecisionServicer, batches
from pdp.server.grpc.health import HealthServicer
from pdp.server.grpc.lock import LockServicer
from pdp.server.grpc.policy import PolicyServicer
from pdp.server.grpc.reader import Reader
from pdp.server.grpc.replication import ReplicationServicer
from pdp.server.grpc.rights import RULES
from pdp.service.assets import Assets
from pdp.service.audit import AuditBook, AuditReceiver
from pdp.service.audit_search import AuditSearch
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.desk import Desk
from pdp.service.health import Health
from pdp.service.history import History
from pdp.service.lists import Lists
from pdp.service.locks import Locks
from pdp.service.replicate import Replication
from pdp.service.trials import Board
from pdp.service.watch_index import Watches
from pdp.v1 import (
    asset_pb2_grpc,
    audit_pb2_grpc,
    decision_pb2_grpc,
    lock_pb2_grpc,
    policy_pb2_grpc,
    replication_pb2_grpc,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What the services need of the application."""

    gate: Gate
    authenticator: Authenticator
    decider: Decider
    replica: Replica
    replication: Replication
    receiver: AuditReceiver
    book: AuditBook
    search: AuditSearch
    health: Health
    metrics: Metrics
    clock: Clock
    new_id: Callable[[], str]
    discretion: Discretion
    watches: Watches
    trials: Board
    cursor_secret: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)
    """Seals the cursors of lists; of this process alone: a list that moves to another PDP starts again."""


def add_services(server: grpc.aio.Server, rooms: Rooms) -> tuple[str, ...]:
    """Register every service; returns their full names."""
    names = tuple(sorted({path.split("/")[1] for path in RULES if path.startswith("/pdp.v1.")}))
    decisions = _decision(rooms)
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(decisions, server)  # type: ignore[no-untyped-call] # generated
    server.add_registered_method_handlers("pdp.v1.DecisionService", batches(decisions))  # type: ignore[attr-defined]  # in place of the generated two
    _add_administration(server, rooms)
    health = HealthServicer(health=rooms.health, services=frozenset(names))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return names


def _decision(rooms: Rooms) -> DecisionServicer:
    return DecisionServicer(
        reader=Reader(gate=rooms.gate, authenticator=rooms.authenticator, replica=rooms.replica),
        gate=rooms.gate,
        decider=rooms.decider,
        lists=Lists(replica=rooms.replica, clock=rooms.clock, secret=rooms.cursor_secret),
        replica=rooms.replica,
        clock=rooms.clock,
        metrics=rooms.metrics,
        discretion=rooms.discretion,
        watches=rooms.watches,
    )


def _add_administration(server: Any, rooms: Rooms) -> None:
    replica, publisher, subscribers = rooms.replica, rooms.replication.publisher, rooms.replication.subscribers
    desk = Desk(replica=replica, publisher=publisher, clock=rooms.clock)
    policies = PolicyServicer(
        desk=desk, publisher=publisher, history=History(publisher.log), gate=rooms.gate, shown=rooms.trials
    )
    assets = Assets(replica=replica, publisher=publisher)
    locks = Locks(replica=replica, publisher=publisher, subscribers=subscribers, clock=rooms.clock, new_id=rooms.new_id)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(policies, server)  # type: ignore[no-untyped-call] # generated
    asset_pb2_grpc.add_AssetServiceServicer_to_server(AssetServicer(assets=assets), server)  # type: ignore[no-untyped-call] # generated
    lock_pb2_grpc.add_LockServiceServicer_to_server(LockServicer(locks=locks), server)  # type: ignore[no-untyped-call] # generated
    audit = AuditServicer(receiver=rooms.receiver, book=rooms.book, search=rooms.search)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)  # type: ignore[no-untyped-call] # generated
    replication = ReplicationServicer(subscribers=subscribers, replica=replica, authorise=_identity, renew=_renew)
    replication_pb2_grpc.add_ReplicationServiceServicer_to_server(replication, server)  # type: ignore[no-untyped-call] # generated


async def _identity(_context: Any, _action: str, _resource: str) -> VerifiedIdentity:
    """Return who calls: the guard has authenticated and authorised the RPC before its servicer runs."""
    return CALLER.get().identity


async def _renew(authorization: str) -> None:
    """Let the subscription of this task go on with a fresh credential."""
    await RENEW.get()(authorization)
