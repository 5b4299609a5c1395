"""The story as data: who does what, through which door, and what the gate must answer.

Nothing here acts. `acts.py` performs an act on the stage and says what happened; a step is told as promised when the two
strings, expected and actual, are the same.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pdp.demo.authority import TRUST_DOMAIN, spiffe_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a token of the development issuer."""

    name: str
    does: str

    @property
    def id(self) -> str:
        """The subject of this person's tokens."""
        return f"{self.name}@{TRUST_DOMAIN}"

    @property
    def principal(self) -> str:
        """The name by which policy and locks know this person."""
        return f"user:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A program with a SPIFFE certificate of the throw-away authority: where a call comes from."""

    name: str
    path: str

    @property
    def spiffe_id(self) -> str:
        """The one URI of its certificate."""
        return spiffe_id(self.path)


SAM: Final = Person(name="sam", does="runs the application")
DANA: Final = Person(name="dana", does="data scientist in dev")
MIA: Final = Person(name="mia", does="auditor")
ADA: Final = Person(name="ada", does="administrator without data rights")
OLGA: Final = Person(name="olga", does="approves changes of the policy")
PEOPLE: Final = (SAM, DANA, MIA, ADA, OLGA)

FRONTEND: Final = Workload(name="frontend", path="/ns/apps/sa/frontend")
NOTEBOOK: Final = Workload(name="jupyter", path="/ns/notebooks/sa/jupyter")
CONSOLE: Final = Workload(name="console", path="/ns/ops/sa/console")
SIDECAR: Final = Workload(name="sidecar", path="/ns/ml/sa/sidecar")
WORKLOADS: Final = (FRONTEND, NOTEBOOK, CONSOLE, SIDECAR)

PROD_MODEL: Final = "digits"
DEV_MODEL: Final = "digits-dev"
SHADOW_MODEL: Final = "digits-shadow"
"""Served names: in production, in development, and one that somebody deployed and registered nowhere."""
MODELS: Final = (PROD_MODEL, DEV_MODEL, SHADOW_MODEL)

TRAINING_DATA: Final = "dataset/digits/train"
PERSONAL_DATA: Final = "dataset/customers/postcards"


class Token(StrEnum):
    """What a caller shows."""

    FRESH = "fresh"
    EXPIRED = "expired"
    NONE = "none"


class Protocol(StrEnum):
    """Which of the model server's protocols a caller speaks."""

    OIP = "oip"
    CHAT = "chat"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Infer:
    """Ask a model, through the gate, what a held-out image shows."""

    person: Person
    workload: Workload
    model: str
    token: Token = Token.FRESH
    protocol: Protocol = Protocol.OIP


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Ask the SDK, from inside a workload, whether a dataset may be read."""

    person: Person
    workload: Workload
    dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Change the policy by one row more, which the policy itself lets nobody do alone."""

    admin: Person
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Approve the change that waits; once it is, its author makes it live."""

    reviewer: Person
    author: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class CutStream:
    """Open two streams through the gate, one in each protocol, lock their subject while they run, and watch both end."""

    admin: Person
    person: Person
    workload: Workload
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskModel:
    """Ask the model server itself, on the loopback, what became of the streams it was computing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """Take the lock away again with `pdp lock remove`."""

    admin: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyAudit:
    """Verify the audit chains, and find every decision of the story in them."""

    admin: Person


Act = Infer | Read | Grant | Approve | CutStream | AskModel | Unlock | VerifyAudit


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what happens, by whom, and the answer that keeps the promise."""

    name: str
    who: str
    act: Act
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an act led to.

    `actual` is compared with the expected answer, `detail` fills a wide screen, `measured` is told on every screen.
    """

    actual: str
    detail: str = ""
    measured: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A step that was performed."""

    step: Step
    outcome: Outcome

    @property
    def as_promised(self) -> bool:
        """True if what happened is exactly what was expected."""
        return self.outcome.actual == self.step.expected


TRUE_PREDICTION: Final = "200 true digit"

STORY: Final = (
    Step(
        name="the application asks the model",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="no token, only a certificate",
        who="nobody, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL, token=Token.NONE),
        expected="401 credential_missing",
    ),
    Step(
        name="an expired token",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL, token=Token.EXPIRED),
        expected="401 token_expired",
    ),
    Step(
        name="wrong role",
        who="mia, apps",
        act=Infer(person=MIA, workload=FRONTEND, model=PROD_MODEL),
        expected="403 no_grant",
    ),
    Step(
        name="he asks over the OpenAI route",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL, protocol=Protocol.CHAT),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="… and over gRPC",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL, protocol=Protocol.GRPC),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="wrong role over OpenAI",
        who="mia, apps",
        act=Infer(person=MIA, workload=FRONTEND, model=PROD_MODEL, protocol=Protocol.CHAT),
        expected="403 no_grant",
    ),
    Step(
        name="… and over gRPC, too",
        who="mia, apps",
        act=Infer(person=MIA, workload=FRONTEND, model=PROD_MODEL, protocol=Protocol.GRPC),
        expected="403 no_grant",
    ),
    Step(
        name="a data scientist asks in dev",
        who="dana, notebooks",
        act=Infer(person=DANA, workload=NOTEBOOK, model=DEV_MODEL),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="wrong environment: she asks prod",
        who="dana, apps",
        act=Infer(person=DANA, workload=FRONTEND, model=PROD_MODEL),
        expected="403 no_grant",
    ),
    Step(
        name="wrong segment: from a notebook",
        who="sam, notebooks",
        act=Infer(person=SAM, workload=NOTEBOOK, model=PROD_MODEL),
        expected="403 segment_denied",
    ),
    Step(
        name="an unregistered shadow model",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=SHADOW_MODEL),
        expected="403 asset_unregistered",
    ),
    Step(
        name="SDK: training data",
        who="dana, notebooks",
        act=Read(person=DANA, workload=NOTEBOOK, dataset=TRAINING_DATA),
        expected="allow granted",
    ),
    Step(
        name="SDK: personal data",
        who="dana, notebooks",
        act=Read(person=DANA, workload=NOTEBOOK, dataset=PERSONAL_DATA),
        expected="deny denied_by_rule",
    ),
    Step(
        name="ada wants the role app for mia",
        who="ada",
        act=Grant(admin=ADA, row=f"g, {MIA.principal}, role:app, prod"),
        expected="waits for 1 approval",
    ),
    Step(
        name="… and approves that herself",
        who="ada",
        act=Approve(reviewer=ADA, author=ADA),
        expected="refused self_approval",
    ),
    Step(
        name="… a second person approves it",
        who="olga",
        act=Approve(reviewer=OLGA, author=ADA),
        expected="policy active",
    ),
    Step(
        name="… and mia's next call passes",
        who="mia, apps",
        act=Infer(person=MIA, workload=FRONTEND, model=PROD_MODEL),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="a lock while two streams run",
        who="ada",
        act=CutStream(admin=ADA, person=SAM, workload=FRONTEND, model=PROD_MODEL),
        expected="cut, held by 1 of 1",
    ),
    Step(
        name="… and the model stops computing",
        who="sam, apps",
        act=AskModel(),
        expected="upstream cancelled",
    ),
    Step(
        name="… and his next call is refused",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL),
        expected="403 locked",
    ),
    Step(
        name="the lock is lifted",
        who="ada",
        act=Unlock(admin=ADA),
        expected="lock removed",
    ),
    Step(
        name="… and his next call passes",
        who="sam, apps",
        act=Infer(person=SAM, workload=FRONTEND, model=PROD_MODEL),
        expected=TRUE_PREDICTION,
    ),
    Step(
        name="the audit chains tell this story",
        who="ada",
        act=VerifyAudit(admin=ADA),
        expected="verified, 0 missing",
    ),
)
