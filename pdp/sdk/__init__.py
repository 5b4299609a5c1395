"""The Python SDK: ask Portcullis before you touch, and keep asking while you hold.

    from pdp.sdk import AccessDenied, Client

    with Client("pdp.example:8181") as client:
        client.require("dataset.read", "dataset/finance/transactions")   # or raises AccessDenied

Fail closed: what cannot be decided raises a `PdpError`; nothing but an allow is an allow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.model.decision import Effect, NearestMiss, Obligation
from pdp.model.listed import Access, Listed
from pdp.sdk.aio import AsyncClient
from pdp.sdk.client import Client
from pdp.sdk.errors import (
    AccessDenied,
    AccessEnded,
    BadQuestion,
    ClientUnusable,
    Conflict,
    CredentialRefused,
    NotFound,
    NotPermitted,
    PdpError,
    PdpFault,
    PdpUnavailable,
    PolicyRefused,
)
from pdp.sdk.lease import AsyncLease, Lease
from pdp.sdk.values import Actor, Asserted, Bearer, Decision, Dpop, Listing, Question

if TYPE_CHECKING:
    from pdp.sdk.dataset import open_dataset
    from pdp.sdk.guards import Guards
    from pdp.sdk.local import LocalClient
    from pdp.sdk.local_aio import AsyncLocalClient

_LAZY: Final = {
    "Guards": ("pdp.sdk.guards", "server"),
    "AsyncLocalClient": ("pdp.sdk.local_aio", "server"),
    "LocalClient": ("pdp.sdk.local", "server"),
    "open_dataset": ("pdp.sdk.dataset", "arrow"),
}
"""What needs more than a client does, and is imported when it is first named; and the extra that brings what it needs."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _LAZY[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        told = f"`pdp.sdk.{name}` needs `{error.name}`; install it with `pip install 'portcullis[{extra}]'`"
        raise ModuleNotFoundError(told, name=error.name) from error


__all__ = [
    "Client",
    "AsyncClient",
    "LocalClient",
    "AsyncLocalClient",
    "open_dataset",
    "Guards",
    "Lease",
    "AsyncLease",
    "Question",
    "Decision",
    "Effect",
    "Reason",
    "Obligation",
    "NearestMiss",
    "Listing",
    "Listed",
    "Access",
    "Bearer",
    "Dpop",
    "Asserted",
    "Actor",
    "PortcullisError",
    "ConfigError",
    "PdpError",
    "PdpUnavailable",
    "CredentialRefused",
    "BadQuestion",
    "NotPermitted",
    "AccessDenied",
    "AccessEnded",
    "PolicyRefused",
    "Conflict",
    "NotFound",
    "PdpFault",
    "ClientUnusable",
]
