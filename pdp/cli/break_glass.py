"""`pdp break-glass`: getting in when the policy itself is broken, with two root keys; loud, short, reviewed afterwards."""

import asyncio
import time
from dataclasses import asdict
from typing import Annotated

import typer

from pdp.adapters.clock import SystemClock
from pdp.adapters.keys_files import load_key, load_pdp_keys
from pdp.change.glass import Statement
from pdp.cli.changes import Message
from pdp.cli.keys import RootKeys, held
from pdp.cli.options import AsJson, Connection, connected, instant_text, noun, parse_duration_ms
from pdp.cli.output import write_json, write_line, write_table
from pdp.cli.settings import ConfigFile, StateDir, StoreUrl, configuration
from pdp.config import Config
from pdp.errors import ConfigError
from pdp.replica import Replica
from pdp.server.stores import open_stores
from pdp.service.break_glass import break_glass
from pdp.service.replicate import Publisher
from pdp.trust.keys import SigningKey
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world

app = noun("Get in with two root keys when the policy is broken; review it afterwards.")

_COLUMNS = ("entry", "who", "role", "environment", "until", "reason")


@app.command("open")
def open_(
    *,
    who: Annotated[str, typer.Option("--for-principal", metavar="PRINCIPAL", help="Whom to let in: `user:…`.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; everybody will read it.")],
    root_key: RootKeys,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="The role to give.")] = "role:sole-admin",
    env: Annotated[str, typer.Option("--env", metavar="ENV", help="Where.")] = "prod",
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="At most an hour.")] = "30m",
    restore: Annotated[
        int, typer.Option("--restore", metavar="ENTRY", min=0, help="Also bring back the policy of that entry.")
    ] = 0,
    state_dir: StateDir = None,
    store: StoreUrl = None,
    config: ConfigFile = None,
) -> None:
    """Give somebody a role for a short time, whatever the policy says. Runs on a PDP's machine, beside the running PDP.

    It takes two distinct root keys (`--root-key` twice), shows in the degradations of every PDP until somebody else has
    reviewed it, and leaves the decision log as it is. Exit code 2 without two keys, 6 if the log moved: run it again.

    Example: `pdp break-glass open --for-principal user:ada@x.org --reason "admins locked out" --root-key a.pem --root-key b.pem`
    """
    settings = configuration(config, {("state_dir",): state_dir, ("store", "url"): store})
    now_ms = time.time_ns() // 1_000_000
    statement = Statement(
        tenant=settings.tenant,
        who=who,
        role=role,
        environment=env,
        start_ms=now_ms,
        end_ms=now_ms + parse_duration_ms(duration),
        reason=reason,
        head="",
        restore_seq=restore,
    )
    seq = asyncio.run(_break(settings, statement, [load_key(path) for path in root_key]))
    write_line(f"broken at entry {seq}: {who} holds {role} in {env} until {instant_text(statement.end_ms)}")
    write_line(f"somebody else reviews it with `pdp break-glass review {seq}`")


async def _break(settings: Config, statement: Statement, keys: list[SigningKey]) -> int:
    root = held(settings.state_dir)
    stores = open_stores(settings)
    try:
        replica = Replica(verifier=TrustVerifier(root, settings.tenant), world=empty_world(settings.tenant))
        publisher = Publisher(stores.log, replica, load_pdp_keys(settings.state_dir), SystemClock())
        await publisher.catch_up()
        if replica.world.seq != (await stores.log.head()).seq:
            raise ConfigError(f"the log does not verify: {replica.last_error}", advice="restore it from a backup")
        return await break_glass(publisher, replica.world, statement, root=root, keys=keys)
    finally:
        await stores.close()


@app.command("list")
@connected
def list_broken(*, as_json: AsJson = False, connection: Connection) -> None:
    """List what was opened and waits for its review.

    Example: `pdp break-glass list`
    """
    with connection.admin() as admin:
        waiting = admin.break_glass()
    if as_json:
        write_json([asdict(one) for one in waiting])
        return
    rows = [(one.seq, one.who, one.role, one.environment, instant_text(one.end_ms), one.reason) for one in waiting]
    write_table(_COLUMNS, rows)


@app.command()
@connected
def review(
    seq: Annotated[int, typer.Argument(metavar="ENTRY", min=1, help="As `pdp break-glass list` shows it.")],
    *,
    message: Message = "",
    connection: Connection,
) -> None:
    """Say that you have looked at what was done under it. Whoever was let in cannot.

    Exit code 3 if you may not, 7 if nothing waits under that number.

    Example: `pdp break-glass review 41 -m "two rows restored, nothing else was touched"`
    """
    with connection.admin() as admin:
        admin.review_break_glass(seq, message=message)
    write_line(f"entry {seq} is reviewed")
