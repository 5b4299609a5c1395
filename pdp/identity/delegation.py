"""Delegation: who acts for the subject (RFC 8693 section 4.1).

`decide` needs an allow for the subject and for the current actor: intersection, never union (AC-1). Nested actors only
tighten: they are matched by locks and stand in the audit record, and grant nothing; neither does `may_act` (AC-2).
"""

from typing import Any

from pdp.errors import Reason
from pdp.identity.claims import Claims, read_principal
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.types import Refusal
from pdp.model.request import Party


def read_actors(claims: Claims, *, issuer: Issuer, table: IssuerTable) -> tuple[Party, ...] | Refusal:
    """Return the chain of actors, current first; empty without `act` (AC-3, T-51)."""
    if "act" not in claims:
        return ()
    if issuer.max_act_depth == 0:
        return _invalid("this issuer may not delegate")  # never read as the subject alone
    seen = {claims["sub"]}
    actors: list[Party] = []
    level: Any = claims
    while "act" in level:
        level = level["act"]
        if len(actors) == issuer.max_act_depth:
            return Refusal(reason=Reason.ACTOR_CHAIN_TOO_DEEP, detail=f"more than {issuer.max_act_depth} actors")
        actor = _read_actor(level, issuer, table)
        if isinstance(actor, Refusal):
            return actor
        if level["sub"] in seen:
            return _invalid("a party stands twice in the chain")
        seen.add(level["sub"])
        actors.append(actor)
    return tuple(actors)


def _read_actor(level: Any, issuer: Issuer, table: IssuerTable) -> Party | Refusal:
    if type(level) is not dict or type(level.get("sub")) is not str:
        return _invalid("an actor is an object with a `sub`")
    if level.get("iss", issuer.iss) != issuer.iss:
        return _invalid("an issuer speaks for its own actors only")  # IS-3
    if level["sub"].lower().startswith("spiffe:"):
        return _invalid("an issuer does not speak for a trust domain")  # IS-3
    principal = read_principal(level["sub"], kind=issuer.actor_kind, issuer=issuer, table=table)
    return _invalid(principal.detail) if isinstance(principal, Refusal) else Party(principal=principal)


def _invalid(detail: str) -> Refusal:
    return Refusal(reason=Reason.ACTOR_INVALID, detail=detail)
