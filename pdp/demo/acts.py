"""Performs the acts of the story on a stage, each through the product's own doors: the gate, the SDK, the command line."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self, assert_never

import httpx

from pdp.demo import commands
from pdp.demo.chat import PATH, chat_body, content_of, question
from pdp.demo.child import StageError
from pdp.demo.classifier import PIXELS, HeldOut, held_out_images
from pdp.demo.gate import Answer, Cut, Gate
from pdp.demo.limits import LIMITS
from pdp.demo.oip import DATATYPE, INPUT
from pdp.demo.oip_grpc import infer
from pdp.demo.pack import SERVED
from pdp.demo.stage import Stage
from pdp.demo.story import (
    ADA,
    TRUE_PREDICTION,
    Act,
    Approve,
    AskModel,
    CutStream,
    Grant,
    Infer,
    Outcome,
    Person,
    Protocol,
    Read,
    Step,
    Token,
    Told,
    Unlock,
    VerifyAudit,
    Workload,
)
from pdp.errors import PortcullisError
from pdp.model.names import counted
from pdp.sdk import AccessDenied, Client, NotPermitted
from pdp.sdk.admin import AdminClient

REFUSED_AT_INTAKE: Final = frozenset({"credential_missing", "token_expired", "locked"})
"""Reasons that end a call before there is a question; the field `principal` of their records is empty."""
EVENTS_BEFORE_CUT: Final = 5
STREAM_EVENTS: Final = 10_000
STREAMS_CUT: Final = 2
STREAM: Final = {"parameters": {"count": STREAM_EVENTS, "interval_ms": 50}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What of a decision the story must find again in the audit chains."""

    principal: str
    resource: str
    effect: str
    reason: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Return the trace that a record leaves."""
        return cls(**{name: record.get(name, "") for name in ("principal", "resource", "effect", "reason")})


@dataclass(slots=True, kw_only=True)
class Narrator:
    """Tells the story on one stage; remembers its lock, the change that waits, and what the audit chains must hold."""

    stage: Stage
    lock_id: str = ""
    proposal: str = ""
    told: Counter[Trace] = field(default_factory=Counter)
    asked: int = 0

    def tell(self, step: Step) -> Told:
        """Perform one step. A step that cannot be performed is not as promised; it does not end the story."""
        try:
            outcome = self._perform(step.act)
        except (StageError, httpx.HTTPError, PortcullisError) as error:
            outcome = Outcome(actual=f"failed: {error}")
        return Told(step=step, outcome=outcome)

    def _perform(self, act: Act) -> Outcome:  # noqa: PLR0911 - one line per kind of act
        match act:
            case Infer():
                return self._infer(act)
            case Read():
                return self._read(act)
            case Grant():
                return self._grant(act)
            case Approve():
                return self._approve(act)
            case CutStream():
                return self._cut_stream(act)
            case AskModel():
                return self._ask_model()
            case Unlock():
                return self._unlock(act)
            case VerifyAudit():
                return self._verify_audit(act)
            case _:
                assert_never(act)

    def _infer(self, act: Infer) -> Outcome:
        index = self.asked = self.asked + 1
        token = self._token(act.person, act.token)
        answer = self._ask(act, index, token)
        if answer.status != httpx.codes.OK:
            return self._refused(act, answer)
        self._remember(act.person.principal, SERVED[act.model]["resource"], "allow", "granted")
        digit, said = _prediction(act, answer)
        written = int(images().digits[index])
        actual = TRUE_PREDICTION if digit == written else f"200 {digit}, but {written} was written"
        return Outcome(actual=actual, detail=said)

    def _ask(self, act: Infer, index: int, token: str | None) -> Answer:
        """Ask for one held-out image in the act's protocol."""
        gate = self._gate(act.workload)
        match act.protocol:
            case Protocol.OIP:
                return gate.post(f"/v2/models/{act.model}/infer", infer_body(index), token)
            case Protocol.CHAT:
                return gate.post(PATH, chat_body(act.model, question(index)), token)
            case Protocol.GRPC:
                where = gate.url.removeprefix("https://")
                return infer(where, gate.bundle, gate.credential, token, act.model, images().images[index])
            case _:
                assert_never(act.protocol)

    def _refused(self, act: Infer, answer: Answer) -> Outcome:
        """The caller learns no more than its status says; the reason stands in the record of that decision."""
        record = self.stage.auditor.decision(answer.get("decision_id") or "no decision id")
        principal = "" if record["reason"] in REFUSED_AT_INTAKE else act.person.principal
        self._remember(principal, SERVED[act.model]["resource"], "deny", str(record["reason"]))
        detail = f'caller sees "{answer.get("error")}"'
        return Outcome(actual=f"{answer.status} {record['reason']}", detail=detail)

    def _read(self, act: Read) -> Outcome:
        credential = self.stage.pki.workloads[act.workload]
        with Client(
            self.stage.pdp_address,
            token=self.stage.tokens[act.person, Token.FRESH],
            ca=self.stage.pki.bundle,
            cert=credential.certificate,
            key=credential.key,
            timeout_s=LIMITS.call_s,
        ) as client:
            try:
                decision = client.require("dataset.read", act.dataset)
            except AccessDenied as denied:
                decision = denied.decision
        effect = decision.effect.name.lower()
        self._remember(act.person.principal, act.dataset, effect, decision.reason.value)
        return Outcome(actual=f"{effect} {decision.reason.value}", detail=", ".join(decision.determining))

    def _grant(self, act: Grant) -> Outcome:
        with self._admin(act.admin) as admin:
            proposed = admin.edit(add=[act.row], message="mia helps out")
        self.proposal = proposed.proposal_id
        waits = f"waits for {proposed.approvals_needed} approval" if not proposed.world_seq else "policy active"
        return Outcome(actual=waits, detail=f"proposal {proposed.proposal_id}")

    def _approve(self, act: Approve) -> Outcome:
        with self._admin(act.reviewer) as reviewer, self._admin(act.author) as author:
            try:
                approved = reviewer.approve(self.proposal, digest=reviewer.proposal(self.proposal).digest)
            except NotPermitted as error:
                return Outcome(actual=f"refused {error.reason}", detail="its author never approves a change")
            live = author.activate(self.proposal)
        self._await_world(live.world_seq)
        by = ", ".join(name.partition(":")[2].partition("@")[0] for name in approved.approved_by)
        return Outcome(actual="policy active", detail=f"by {by}; held by every enforcement point")

    def _cut_stream(self, act: CutStream) -> Outcome:
        token = self._token(act.person, Token.FRESH) or ""
        path, gate = f"/v2/models/{act.model}/generate_stream", self._gate(act.workload)
        long = chat_body(act.model, question(0, STREAM_EVENTS), stream=True)
        with gate.stream(path, STREAM, token) as running, gate.stream(PATH, long, token) as chatting:
            for stream in (running, chatting):
                self._remember(act.person.principal, SERVED[act.model]["resource"], "allow", "granted")
                stream.wait_for_events(EVENTS_BEFORE_CUT)
            began = time.monotonic()
            locked = self._command(
                act.admin, "lock", "add", act.person.principal, "--reason", "laptop stolen", "--wait", "all"
            )
            cut, chat = running.cut(), chatting.cut()
        self.lock_id = str(locked["lock"]["id"])
        return Outcome(
            actual=_how_cut((cut, chat), locked),
            detail=f"{cut.events} and {chat.events} events, then {cut.last_error or chat.last_error or 'an abort'}",
            measured=_how_fast(cut, began, locked),
        )

    def _ask_model(self) -> Outcome:
        """The model's own count; the gate has no say in it, and nobody else reaches this address."""
        self.stage.model.wait_for(rf"stream cancelled by its caller \({STREAMS_CUT} so far\)", LIMITS.cut_s)
        streams = httpx.get(f"{self.stage.model_url}/demo/streams", timeout=LIMITS.call_s, trust_env=False).json()
        stopped = streams["cancelled"] == streams["started"] == STREAMS_CUT
        detail = f"{streams['events']} of {STREAMS_CUT * STREAM_EVENTS} events computed"
        return Outcome(actual="upstream cancelled" if stopped else f"still computing: {streams}", detail=detail)

    def _unlock(self, act: Unlock) -> Outcome:
        removed = self._command(act.admin, "lock", "remove", self.lock_id)
        self._await_world(removed["world_seq"])
        return Outcome(actual="lock removed", detail=f"world {removed['world_seq']}, held by every enforcement point")

    def _verify_audit(self, act: VerifyAudit) -> Outcome:
        """Every chain is whole, and every step that was told stands in one of them."""
        cut = self.stage.auditor.stream_event("cut")
        missing = self._missing(act.admin) + (cut.get("reason") != "locked")
        verified = self._command(act.admin, "audit", "verify", str(self.stage.audit))
        chains = verified["chains"]
        length = sum(chain["records"] for chain in chains)
        return Outcome(
            actual=f"{'verified' if verified['ok'] else 'broken'}, {missing} missing",
            detail=f"{counted(len(chains), 'chain')}, {length} records",
        )

    def _missing(self, admin: Person) -> int:
        """Count the decisions of the story that stand in no chain; the last of them may still be on their way."""
        deadline = time.monotonic() + LIMITS.call_s
        while True:
            records = self._command(admin, "audit", "tail", "--last", str(LIMITS.audit_records))
            missing = (self.told - Counter(Trace.of(record) for record in records)).total()
            if not missing or time.monotonic() > deadline:
                return missing

    def _await_world(self, world_seq: int) -> None:
        """Wait until every connected enforcement point holds a change: only a lock's own command does that itself."""
        with self._admin(ADA) as admin:
            deadline = time.monotonic() + LIMITS.call_s
            while any(one.connected and one.seq < world_seq for one in admin.replicas().replicas):
                if time.monotonic() > deadline:
                    raise StageError(f"world {world_seq} did not reach every enforcement point")
                time.sleep(LIMITS.poll_s)

    def _admin(self, person: Person) -> AdminClient:
        settings = self.stage.environment(person)
        return AdminClient(
            settings["PDP_SERVER"],
            token=Path(settings["PDP_TOKEN_FILE"]),
            ca=settings["PDP_CA"],
            cert=settings["PDP_CERT"],
            key=settings["PDP_KEY"],
        )

    def _command(self, admin: Person, *arguments: str) -> Any:
        return commands.must(arguments, where=self.stage.directory, environment=self.stage.environment(admin))

    def _gate(self, workload: Workload) -> Gate:
        credential = self.stage.pki.workloads[workload]
        return Gate(url=self.stage.gate_url, bundle=self.stage.pki.bundle, credential=credential)

    def _token(self, person: Person, kind: Token) -> str | None:
        if kind is Token.NONE:
            return None
        return self.stage.tokens[person, kind].read_text(encoding="ascii").strip()

    def _remember(self, principal: str, resource: str, effect: str, reason: str) -> None:
        self.told[Trace(principal=principal, resource=resource, effect=effect, reason=reason)] += 1


@lru_cache(maxsize=1)
def images() -> HeldOut:
    """Return the held-out images, loaded once."""
    return held_out_images()


def infer_body(index: int) -> dict[str, object]:
    """Return the `infer` request for one held-out image."""
    data = images().images[index].tolist()
    return {"inputs": [{"name": INPUT, "shape": [1, PIXELS], "datatype": DATATYPE, "data": data}]}


def _prediction(act: Infer, answer: Answer) -> tuple[int, str]:
    """Return the digit, and how the model said it."""
    if act.protocol is Protocol.CHAT:
        text = content_of(answer.body)
        return int(text), f'it says "{text}"'
    digit, probabilities = (output["data"] for output in answer.body["outputs"])
    return int(digit[0]), f"a {int(digit[0])}, {float(max(probabilities)):.0%} sure"


def _how_cut(cuts: Sequence[Cut], locked: Any) -> str:
    receipt = locked["receipt"]
    end = "cut" if all(cut.broken for cut in cuts) else "ended as if complete"
    return f"{end}, held by {receipt['holding']} of {receipt['connected']}"


def _how_fast(cut: Cut, began: float, locked: Any) -> str:
    from_command = (cut.mono_s - began) * 1_000
    from_accepted = cut.wall_ms - float(locked["lock"]["start_ms"])
    return (
        f"the running stream was cut {from_accepted:.0f} ms after the PDP accepted the lock, {from_command:.0f} ms after "
        "`pdp lock add` was typed"
    )
