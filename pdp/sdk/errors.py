"""What the SDK raises: one class per thing a caller can do about it, each with the stable reason code behind it.

A denied access is not an error: `check` returns it. Only `require` raises it, as `AccessDenied`. Everything else here says
that the question could not be put or answered, and none of it may ever be read as an allow.
"""

from collections.abc import Sequence
from typing import Any, Final

from pdp.errors import MEANINGS, BadNameError, BadRequestError, ConfigError, PortcullisError, Reason
from pdp.sdk.values import Decision


class PdpError(PortcullisError):
    """The base of every error of the SDK.

    `correlation_id` names the PDP's own log line; `findings` are those of a refused pack; `head_seq` is the log's head
    where a write lost its race.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        advice: str = "",
        correlation_id: str = "",
        findings: Sequence[str] = (),
        head_seq: int = 0,
    ) -> None:
        super().__init__(reason, message, advice=advice)
        self.correlation_id = correlation_id
        self.findings = tuple(findings)
        self.head_seq = head_seq

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process pools by pickle, and each of those who shared a failed call raises a copy of its own.
        more = {"correlation_id": self.correlation_id, "findings": self.findings, "head_seq": self.head_seq}
        return _rebuilt, (type(self), self.reason, self.message, {"advice": self.advice, **more})


def _rebuilt(kind: type[PdpError], reason: Reason, message: str, more: dict[str, Any]) -> PdpError:
    return kind(reason, message, **more)


# The names below are those that callers write after `except`, chosen to be read there; hence no suffix `Error`.
class PdpUnavailable(PdpError):  # noqa: N818
    """The PDP could not be reached, did not answer in time, or cannot decide now: treat the access as denied."""


class CredentialRefused(PdpError):  # noqa: N818
    """Our credential is missing, expired or not accepted; the reason says which."""


class BadQuestion(PdpError, ValueError):  # noqa: N818
    """The question is malformed; the message says where. Asking again cannot help."""


class NotPermitted(PdpError):  # noqa: N818
    """The PDP knows us and does not let us do this: ask questions, assert a subject, or administer."""


class PolicyRefused(PdpError):  # noqa: N818
    """The pack has errors; `findings` lists every one as `file:line:column: PCnnn name: message`."""


class Conflict(PdpError):  # noqa: N818
    """Another change came first; read the world at `head_seq`, then try again."""


class ApprovalMissing(PdpError):  # noqa: N818
    """The policy demands more approvals of this change than it has; the message says who approved it."""


class NotFound(PdpError):  # noqa: N818
    """There is nothing of that name."""


class PdpFault(PdpError):  # noqa: N818
    """The PDP failed in a way it did not foresee: treat the access as denied, report `correlation_id`."""


class ClientUnusable(PdpError, RuntimeError):  # noqa: N818
    """The client is closed, or was made before a fork: make a new one."""


class AccessDenied(PortcullisError, PermissionError):  # noqa: N818
    """`require` was answered by a deny; `decision` says why, `decision_id` is where the audit chain holds it.

    A `PermissionError` too: what data tools expect of a file that may not be read.
    """

    def __init__(self, decision: Decision, *, action: str, resource: str) -> None:
        told = f"`{action}` on `{resource}` is denied: {decision.reason}"
        if decision.decision_id:
            told += f", decision {decision.decision_id}"
        if decision.detail:
            told += f": {decision.detail}"
        super().__init__(decision.reason, told)
        self.decision = decision
        self.decision_id = decision.decision_id
        self.action = action
        self.resource = resource

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process pools by pickle, which calls the class with `args` alone and would fail here.
        return _access_denied, (self.decision, self.action, self.resource)


class AccessEnded(PortcullisError, PermissionError):  # noqa: N818
    """A lease has ended: stop what it covers. `decision` is the one that ended it; None: nobody can say any more."""

    def __init__(
        self, reason: Reason, *, action: str, resource: str, decision: Decision | None = None, detail: str = ""
    ) -> None:
        told = f"`{action}` on `{resource}` has ended: {reason}" + (f": {detail}" if detail else "")
        super().__init__(reason, told)
        self.action = action
        self.resource = resource
        self.decision = decision
        self.detail = detail

    def again(self) -> "AccessEnded":
        """Return a copy to raise: an error that is raised at every check would gather every traceback."""
        copied = _access_ended(self.reason, self.action, self.resource, self.decision, self.detail)
        copied.__cause__ = self.__cause__
        return copied

    def __reduce__(self) -> tuple[object, ...]:
        return _access_ended, (self.reason, self.action, self.resource, self.decision, self.detail)


def _access_ended(reason: Reason, action: str, resource: str, decision: Decision | None, detail: str) -> AccessEnded:
    return AccessEnded(reason, action=action, resource=resource, decision=decision, detail=detail)


def _access_denied(decision: Decision, action: str, resource: str) -> AccessDenied:
    return AccessDenied(decision, action=action, resource=resource)


_BY_EXIT_CODE: Final[dict[int, type[PdpError]]] = {
    1: PdpFault,
    2: BadQuestion,
    3: NotPermitted,
    4: CredentialRefused,
    5: PdpUnavailable,
    6: Conflict,
    7: NotFound,
    8: ApprovalMissing,
}


def typed(error: PortcullisError) -> PortcullisError:
    """Return an error of the parts that local mode shares with the PDP as the one that a caller of the SDK expects."""
    if isinstance(error, PdpError | ConfigError):
        return error
    kind = BadQuestion if isinstance(error, BadNameError | BadRequestError) else error_class(error.reason)
    return kind(error.reason, error.message, advice=error.advice)


def error_class(reason: Reason) -> type[PdpError]:
    """Return the class that stands for `reason`, by the one table of meanings."""
    if reason is Reason.POLICY_REFUSED:
        return PolicyRefused
    return _BY_EXIT_CODE.get(MEANINGS[reason].exit_code, PdpFault)
