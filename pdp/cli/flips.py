"""`pdp policy diff DIR --replay 7d`: what a proposed policy would have done to the traffic that was logged."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pdp.cli.audit_files import whole_records
from pdp.cli.audit_replay import newest_world
from pdp.cli.diffs import become, live_policy
from pdp.cli.options import Connection, parse_duration_ms
from pdp.cli.output import write_json, write_line, write_table
from pdp.cli.settings import configuration
from pdp.engine.compiler import Snapshot
from pdp.model import canonical
from pdp.model.names import counted
from pdp.service.redecide import Flip, Flips, flips
from pdp.signals.locks import LockSet
from pdp.world import Policy, World, empty_world, make_asset

_COLUMNS: Final = ("change", "decisions", "subject", "action", "resource", "by", "instead of")
GROUPS: Final = ("rule", "subject", "resource")


def flips_of(connection: Connection, pack: Path, *, window: str, state_dir: Path | None) -> Flips:
    """Return how the decisions logged in `window` (such as `7d`) flip if the pack in directory `pack` is applied.

    Read from the PDP that `connection` reaches, or offline from a copy of its state directory.

    Raises:
        PortcullisError: the records or the live policy cannot be had.
    """
    since_ms = time.time_ns() // 1_000_000 - parse_duration_ms(window)
    if state_dir is not None:
        live = asyncio.run(newest_world(configuration(None, {("state_dir",): state_dir})))
        records: Iterator[Mapping[str, Any]] = _recorded(state_dir, since_ms)
        return flips(records, _unlocked(live), _under(live, become(live.policy, pack)))
    with connection.admin() as admin:
        live = replace(empty_world(""), policy=live_policy(admin.policy()))
        held = {one.name: make_asset(live, one.name, one.attributes) for one in admin.assets().assets}
        live = replace(live, assets=MappingProxyType(held))
        records = (canonical.loads(told.record) for told in admin.audit_records(since_ms=since_ms))
        return flips(records, live, _under(live, become(live.policy, pack)))


def tell(told: Flips, *, as_json: bool) -> None:
    """Print the flips, the most frequent first, and how many there are by rule, subject and resource."""
    if as_json:
        groups = {f"by_{name}": dict(grouped(told.counts.items(), name).most_common()) for name in GROUPS}
        listed = [_json(flip, count) for flip, count in told.counts.most_common()]
        write_json(
            {"decided": told.decided, "flips": listed, **groups, "not_decided_again": dict(told.lost)},
        )
        return
    rows = [
        (flip.change, count, flip.subject, flip.action, flip.resource, by(flip.after), by(flip.before))
        for flip, count in told.counts.most_common()
    ]
    if rows:
        write_table(_COLUMNS, rows)
        tell_groups(told.counts.items())
        write_line()
    write_line(f"{told.counts.total()} of {counted(told.decided, 'logged decision')} would be answered otherwise")
    for why, count in told.lost.most_common():
        write_line(f"{count} not decided again: {why}")


def tell_groups(flipped: Collection[tuple[Any, int]]) -> None:
    """Print how many decisions flip by each rule, subject and resource."""
    for name in GROUPS:
        write_line()
        write_table((name, "decisions"), grouped(flipped, name).most_common())


def grouped(flipped: Iterable[tuple[Any, int]], name: str) -> Counter[str]:
    """Return how many decisions flip by `rule`, `subject` or `resource`; a flip counts for each rule that makes it.

    `flipped` holds flips, or what a PDP tells of them, each with its count.
    """
    counts: Counter[str] = Counter()
    for flip, count in flipped:
        rules = flip.after.determining or flip.before.determining or ("no rule",)
        for key in rules if name == "rule" else (getattr(flip, name),):
            counts[key] += count
    return counts


def by(said: Any) -> str:
    """Return what one side of a flip says, and by which rules."""
    return f"{said.effect}: {', '.join(said.determining) or said.reason}"


def _json(flip: Flip, count: int) -> dict[str, Any]:
    return {
        "change": flip.change,
        "decisions": count,
        "subject": flip.subject,
        "action": flip.action,
        "resource": flip.resource,
        "before": flip.before._asdict(),
        "after": flip.after._asdict(),
    }


def _recorded(state_dir: Path, since_ms: int) -> Iterator[Mapping[str, Any]]:
    for _, record in whole_records(configuration(None, {("state_dir",): state_dir}).audit_dir):
        if record["time_ms"] >= since_ms:
            yield record


def _unlocked(world: World) -> World:
    """A lock of today would hide on both sides what the policies differ in."""
    return replace(world, locks=LockSet.EMPTY)


def _under(live: World, proposed: Snapshot) -> World:
    policy = Policy(model_text="", vocabulary_text="", snapshot=proposed, revision="")
    return replace(_unlocked(live), policy=policy)
