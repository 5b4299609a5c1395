"""Projected service-account tokens of Kubernetes: what the token says of itself, and what the cluster says of it (KU-1..6).

Offline the token proves that an account of this name once existed; its uid is part of the identity, so that an account
deleted and made anew is another one (KU-3). Deletions are seen by a live check alone (KU-6): the answer of a TokenReview
comes in as a value, and must agree with the token in every part.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from pdp.errors import Reason
from pdp.identity.claims import Claims
from pdp.identity.issuers import Issuer
from pdp.identity.types import Refusal
from pdp.limits import MAX_SUBJECT_BYTES

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account and, where the token is bound to one, the pod behind a token. `pod_uid` is empty without."""

    namespace: str
    name: str
    uid: str
    pod_uid: str = ""

    @property
    def subject(self) -> str:
        """The subject that a token of this account has (KU-2)."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a TokenReview answered, as it came: nothing here is believed to be of its type."""

    authenticated: Any
    audiences: Any = None
    username: Any = None
    uid: Any = None
    pod_uid: Any = None

    @property
    def active(self) -> bool:
        """Whether the cluster says that it knows the token; a text or a number says nothing."""
        return self.authenticated is True


def read_account(claims: Claims, issuer: Issuer) -> Account | Refusal:
    """Return the account behind a token whose parts agree (KU-2), unless another uid is on record for it (KU-3)."""
    account = _read(claims["kubernetes.io"])
    if account is None:
        return Refusal(reason=Reason.CLAIM_TYPE_INVALID, detail="`kubernetes.io` does not name an account with its uid")
    if claims["sub"] != account.subject or len(claims["sub"]) > MAX_SUBJECT_BYTES:
        return Refusal(reason=Reason.SUBJECT_NOT_ALLOWED, detail="`sub` is not the account of `kubernetes.io`")  # T-55
    recorded = issuer.account_uids.get(f"{account.namespace}/{account.name}", account.uid)
    if recorded != account.uid:
        return Refusal(reason=Reason.SUBJECT_RECREATED, detail="not the uid on record")  # T-55, KU-3
    return account


def _read(claim: Any) -> Account | None:
    if type(claim) is not dict or type(claim.get("serviceaccount")) is not dict:
        return None
    pod = claim.get("pod", {"uid": ""})
    if type(pod) is not dict:
        return None
    named = claim["serviceaccount"]
    namespace, name = _text(_LABEL, claim.get("namespace")), _text(_LABEL, named.get("name"))
    uid, pod_uid = _text(_UID, named.get("uid")), _text(_UID, pod.get("uid"))
    if not namespace or not name or not uid or ("pod" in claim and not pod_uid):
        return None
    return Account(namespace=namespace, name=name, uid=uid, pod_uid=pod_uid)


def _text(pattern: re.Pattern[str], value: Any) -> str:
    """Return `value` if it is a text of that form, else the empty one."""
    return value if type(value) is str and pattern.fullmatch(value) else ""


def check_review(account: Account, review: Review, issuer: Issuer) -> Refusal | None:
    """Refuse a token that its cluster does not confirm, for us and for this very account and pod (KU-3, KU-4, KU-6)."""
    if not review.active:
        return Refusal(reason=Reason.TOKEN_INACTIVE, detail="the cluster does not know the token")  # T-56
    # An API server that does not look at audiences answers without them: a token for it would do for us.
    if type(review.audiences) is not list or set(issuer.audiences).isdisjoint(map(str, review.audiences)):
        return Refusal(reason=Reason.TOKEN_INACTIVE, detail="the cluster does not confirm our audience")  # T-56, KU-6
    if review.username != account.subject:
        return Refusal(reason=Reason.SUBJECT_NOT_ALLOWED, detail="the cluster names another account")  # T-55
    if review.uid != account.uid:
        return Refusal(reason=Reason.SUBJECT_RECREATED, detail="the account has another uid now")  # T-55, KU-3
    if account.pod_uid and review.pod_uid != account.pod_uid:
        return Refusal(reason=Reason.WORKLOAD_GONE, detail="its pod is not confirmed")  # T-55, KU-4
    return None
