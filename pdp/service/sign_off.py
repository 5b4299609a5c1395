"""Signing off a review of access: who may approve changes says for the log that they looked, and at which report."""

from typing import Final

from pdp.change.signoff import SignOff
from pdp.errors import BadRequestError
from pdp.service.desk import APPROVE, Acting, Desk
from pdp.service.replicate import Publisher

SIGN_OFF: Final = "sign_off"


async def sign_off(desk: Desk, publisher: Publisher, signed: SignOff, *, who: Acting) -> int:
    """Write the sign-off of a report into the log; returns its entry.

    Raises:
        BadRequestError: the report is of a world that is not there yet.
        PortcullisError: the caller may not.
    """
    await who.may(APPROVE, desk.untouched())
    if signed.world_seq > desk.world.seq:
        raise BadRequestError(f"the report is of world {signed.world_seq}, and this is {desk.world.seq}")
    return await publisher.publish_behind(SIGN_OFF, signed.to_json(), author=who.chain[0])
