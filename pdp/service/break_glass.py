"""Breaking the glass: on the PDP's own machine, with two root keys, whatever the policy says; and reviewing it afterwards."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from pdp.change.glass import KEYS_NEEDED, Statement, count_signers
from pdp.engine.casbin_text import OPEN, Row
from pdp.errors import ConfigError, ConflictError, PortcullisError, Reason
from pdp.model.attributes import instant_of
from pdp.service.desk import APPROVE, KIND, Acting, Desk
from pdp.service.history import History
from pdp.service.packs import GLASS_FILE, change_to
from pdp.service.replicate import Publisher
from pdp.trust.keys import Role, RootFile, SigningKey
from pdp.world import Policy, World, policy_after

REVIEW: Final = "review"


async def break_glass(
    publisher: Publisher, world: World, statement: Statement, *, root: RootFile, keys: Sequence[SigningKey]
) -> int:
    """Carry out what two root keys sign; returns the entry that does.

    Args:
        publisher: of the log, caught up with it.
        world: of now.
        statement: what is wanted; its `head` is set here.
        root: the root file in force.
        keys: the root keys at hand.

    Raises:
        ConfigError: fewer than two distinct keys of the root file.
        PortcullisError: `policy_refused` if the policy cannot take the row, `conflict` if the log moved meanwhile.
    """
    signed = replace(statement, head=world.head.hex())
    signatures = {key.key_id: key.sign(signed.message()).signature for key in keys}
    counted = count_signers(signed, signatures, {key.key_id: key for key in root.holders(Role.ROOT)}, seq=world.seq + 1)
    if counted < KEYS_NEEDED:
        raise ConfigError(
            f"{counted} of {KEYS_NEEDED} root keys: the glass takes two distinct ones, each named in the root file",
            advice="bring the second key, or name it with `pdp keys rotate`",
        )
    change = await _change(publisher, world, signed)
    payload: dict[str, Any] = {
        **change,
        "rows_digest": policy_after(world.policy, change).snapshot.digest.hex(),
        "message": f"break-glass: {signed.reason}",
        "authors": [signed.who],
        "break_glass": {
            "statement": asdict(signed),
            "signatures": {found: signature.hex() for found, signature in signatures.items()},
        },
    }
    return await publisher.publish(KIND, payload, author="break-glass", expected_seq=world.seq)


async def _change(publisher: Publisher, world: World, statement: Statement) -> dict[str, Any]:
    policy = world.policy
    if policy is None:
        raise ConfigError("no policy is held: nothing to break into", advice="run `pdp init`")
    row = Row(
        "g", (statement.who, statement.role, statement.environment, OPEN, instant_of(statement.end_ms)), GLASS_FILE, 1
    )
    if statement.restore_seq:
        held = await History(publisher.log).at(statement.restore_seq)
        kept = [one for one in held.rows if one.file != GLASS_FILE]
        return change_to(policy, model=held.model, vocabulary=held.vocabulary, rows=(*kept, row))
    return _beside(policy, row)


def _beside(policy: Policy, row: Row) -> dict[str, Any]:
    """Return the change that puts `row` in the place of what an earlier glass left."""
    gone = [one for one in policy.snapshot.rows if one.file == GLASS_FILE]
    return {"model": None, "vocabulary": None, "added": [row.to_json()], "removed": [one.to_json() for one in gone]}


async def review(desk: Desk, publisher: Publisher, seq: int, *, message: str, who: Acting) -> World:
    """Say that somebody else has looked at what was done under a broken glass; then it is no degradation any more.

    Raises:
        PortcullisError: `not_found` if nothing waits under that number, `self_approval` for whoever was let in; and where the
            caller may not review.
    """
    while True:
        world = desk.world
        broken = next((one for one in world.glass if one.seq == seq), None)
        if broken is None:
            raise PortcullisError(
                Reason.NOT_FOUND, f"no broken glass of entry {seq} waits for review", advice="`pdp break-glass list`"
            )
        if broken.who in who.chain:
            raise PortcullisError(Reason.SELF_APPROVAL, "who was let in does not review it", advice="ask somebody else")
        await who.may(APPROVE, desk.untouched())
        payload = {"seq": seq, "by": list(who.chain), "message": message}
        try:
            await publisher.publish(REVIEW, payload, author=who.chain[0], expected_seq=world.seq)
        except ConflictError:
            if desk.world is world:
                raise
            continue
        return desk.world
