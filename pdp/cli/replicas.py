"""`pdp replicas`: who enforces, and which world they hold."""

from dataclasses import asdict
from typing import Any

from pdp.cli.options import AsJson, Connection, connected
from pdp.cli.output import write_json, write_line, write_table
from pdp.sdk.admin import Replica


@connected
def replicas(*, as_json: AsJson = False, connection: Connection) -> None:
    """Show every enforcement point: the world it holds, how stale it is, and whether it is connected.

    Example: `pdp replicas --json | jq 'map(select(.behind > 0))'`
    """
    with connection.admin() as admin:
        told = admin.replicas()
    if as_json:
        write_json([asdict(replica) | _for_json(replica, told.head_seq) for replica in told.replicas])
        return
    write_line(f"head: world {told.head_seq}")
    rows = [
        (
            replica.identity,
            replica.role,
            replica.version,
            replica.seq,
            _staleness(replica),
            _state(replica, told.head_seq),
        )
        for replica in told.replicas
    ]
    write_table(("identity", "role", "version", "world", "stale", "state"), rows)


def _for_json(replica: Replica, head_seq: int) -> dict[str, Any]:
    # JSON has no infinity: a replica that never heard a heartbeat has no staleness.
    known = replica.staleness_s < float("inf")
    return {"staleness_s": replica.staleness_s if known else None, "behind": max(0, head_seq - replica.seq)}


def _staleness(replica: Replica) -> str:
    return f"{replica.staleness_s:.1f} s" if replica.staleness_s < float("inf") else "unknown"


def _state(replica: Replica, head_seq: int) -> str:
    if not replica.connected:
        return "not connected"
    return "ok" if replica.seq >= head_seq else f"{head_seq - replica.seq} behind"
