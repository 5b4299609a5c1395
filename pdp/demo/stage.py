"""The stage: a model server, a PDP and a sidecar with the real Envoy, each a process of its own on the loopback.

`set_stage` builds everything in one directory that it removes afterwards: certificates, issuer, pack, tokens, state. It
returns when the gate is open, which each process says itself by one line, and on leaving (an error and Ctrl-C included) it
stops the processes in the opposite order and waits until each is gone.
"""

import datetime as dt
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.demo import commands
from pdp.demo.auditor import Auditor
from pdp.demo.authority import Authority, Credential, create_authority
from pdp.demo.child import Child
from pdp.demo.pack import write_pack, write_routes, write_trust
from pdp.demo.story import ADA, CONSOLE, MODELS, OLGA, PEOPLE, SAM, SIDECAR, WORKLOADS, Person, Token, Workload

Progress = Callable[[str], AbstractContextManager[object]]
"""Shows what is being waited for, as long as its context lasts."""

ANY_PORT: Final = "127.0.0.1:0"
TOKEN_LIFE: Final = {Token.FRESH: "12h", Token.EXPIRED: "-5m"}
"""As `pdp token issue --ttl` takes it: a day's play with `--keep`, and one that ended five minutes ago."""
MEMBERS: Final = "members"
"""The group whose members may ask the PDP at all (the shipped `roles.csv`)."""
READY: Final = r"^ready .*?\b(?:grpc|listen)=(\S+)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Every certificate of the demonstration."""

    bundle: Path
    pdp: Credential
    gate: Credential
    workloads: Mapping[Workload, Credential]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage that stands: where everything is, and the processes that serve."""

    directory: Path
    pki: Pki
    tokens: Mapping[tuple[Person, Token], Path]
    pdp: Child
    model: Child
    sidecar: Child
    auditor: Auditor
    pdp_address: str
    model_url: str
    gate_url: str
    model_says: str
    """How good the classifier is, in the model server's own words."""

    @property
    def pack(self) -> Path:
        """The policy pack's source."""
        return self.directory / "pack"

    @property
    def audit(self) -> Path:
        """The audit chains that the PDP keeps: its own, and those its enforcement points shipped."""
        return self.directory / "pdp" / "audit"

    def environment(self, person: Person, workload: Workload = CONSOLE) -> dict[str, str]:
        """Return the settings with which `pdp` commands speak for `person` from `workload`."""
        return _settings(self.pki, workload, self.pdp_address, self.tokens[person, Token.FRESH])


@contextmanager
def set_stage(progress: Progress, *, now: dt.datetime, upstream: str | None = None) -> Iterator[Stage]:
    """Set the stage, hand it over, and clear it away.

    Args:
        progress: shows what is being waited for.
        now: wall clock, for certificates.
        upstream: URL that the sidecar guards in place of the demonstration's own model server (a benchmark's, say).

    Raises:
        StageError: something did not start; the message says what, and what it said last.
    """
    with ExitStack() as cleanup:
        directory = Path(tempfile.mkdtemp(prefix="portcullis-demo-"))
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        builder = _Builder(directory=directory, cleanup=cleanup, progress=progress, now=now, upstream=upstream)
        yield builder.build()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """What building needs; each method adds one part."""

    directory: Path
    cleanup: ExitStack
    progress: Progress
    now: dt.datetime
    upstream: str | None

    def build(self) -> Stage:
        # The model server first: it imports and trains while the rest is prepared.
        model = self._start("model server", [*commands.MODEL_SERVER, *_repeated("--model", MODELS)])
        pki = _issue(create_authority(self.directory / "pki", self.now))
        with self.progress("making a development issuer"):
            self._write_sources(pki)
        pdp = self._start_pdp(pki)
        with self.progress("issuing tokens"):
            tokens = self._issue_tokens()
        with self.progress("starting the policy decision point"):
            pdp_address = pdp.wait_for(READY)[1]
        with self.progress("training a classifier of handwritten digits"):
            model_grpc = "http" + model.wait_for(r"listening on grpc(://\S+)")[1]
            model_url = model.wait_for(r"listening on (http://\S+)")[1]
            model_says = model.wait_for("^trained .*$")[0]
        auditor = self._start_auditor(pki, tokens, pdp_address)
        sidecar = self._start_sidecar(
            pki, pdp_address=pdp_address, model_url=self.upstream or model_url, model_grpc=model_grpc
        )
        with self.progress("starting the sidecar and its Envoy"):
            gate = sidecar.wait_for(READY)[1]
        return Stage(
            directory=self.directory,
            pki=pki,
            tokens=tokens,
            pdp=pdp,
            model=model,
            sidecar=sidecar,
            auditor=auditor,
            pdp_address=pdp_address,
            model_url=model_url,
            gate_url=f"https://{gate}",
            model_says=model_says,
        )

    def _start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Child:
        log = self.directory / f"{name.replace(' ', '-')}.log"
        settings = commands.base_environment() | dict(environment or {})
        child = Child.start(name, command, log=log, environment=settings)
        self.cleanup.callback(child.stop)
        return child

    def _write_sources(self, pki: Pki) -> None:
        issuer = self.directory / "issuer"
        commands.must(["token", "init", "--dir", str(issuer)], where=self.directory, as_json=False)
        write_trust(self.directory / "trust.yaml", jwks=issuer / "jwks.json", ca=pki.bundle)
        write_routes(self.directory / "routes.yaml")
        write_pack(self.directory / "pack")

    def _issue_tokens(self) -> dict[tuple[Person, Token], Path]:
        wanted = [(person, Token.FRESH) for person in PEOPLE] + [(SAM, Token.EXPIRED)]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            return dict(zip(wanted, pool.map(self._issue_token, wanted), strict=True))

    def _issue_token(self, wanted: tuple[Person, Token]) -> Path:
        person, kind = wanted
        path = self.directory / f"{person.name}.{kind.value}.token"
        life = f"--ttl={TOKEN_LIFE[kind]}"
        files = ["--dir", str(self.directory / "issuer"), "--output", str(path)]
        issue = ["token", "issue", "--sub", person.id, "--groups", MEMBERS, life, *files]
        commands.must(issue, where=self.directory, as_json=False)
        return path

    def _start_pdp(self, pki: Pki) -> Child:
        files = {
            "--state-dir": self.directory / "pdp",
            "--pack": self.directory / "pack",
            "--trust": self.directory / "trust.yaml",
            "--tls-cert": pki.pdp.certificate,
            "--tls-key": pki.pdp.key,
            "--client-ca": pki.bundle,
        }
        doors = ["--listen", ANY_PORT, "--probes", ANY_PORT, "--mode", "development"]
        return self._start(
            "pdp",
            [
                *(*commands.PDP, "serve", "--init", "--admin", ADA.principal, "--approver", OLGA.principal),
                *doors,
                *_options(files),
            ],
        )

    def _start_sidecar(self, pki: Pki, *, pdp_address: str, model_url: str, model_grpc: str) -> Child:
        own = pki.workloads[SIDECAR]
        files = {
            "--tls-cert": pki.gate.certificate,
            "--tls-key": pki.gate.key,
            "--client-ca": pki.bundle,
            "--pdp-ca": pki.bundle,
            "--cert": own.certificate,
            "--key": own.key,
            "--trust": self.directory / "trust.yaml",
            "--routes": self.directory / "routes.yaml",
            "--state-dir": self.directory / "sidecar",
        }
        doors = [
            "--upstream",
            model_url,
            "--upstream-grpc",
            model_grpc,
            "--listen",
            ANY_PORT,
            "--probes",
            ANY_PORT,
            "--pdp",
            pdp_address,
        ]
        pinned = ["--root-digest", _root_digest(self.directory / "pdp" / "root.json")]
        return self._start("sidecar", [*commands.SIDECAR, "run", *doors, *pinned, *_options(files)])

    def _start_auditor(self, pki: Pki, tokens: Mapping[tuple[Person, Token], Path], pdp_address: str) -> Auditor:
        settings = _settings(pki, CONSOLE, pdp_address, tokens[ADA, Token.FRESH])
        command = [*commands.PDP, "audit", "tail", "--follow", "--json"]
        return Auditor(tail=self._start("audit tail", command, settings))


def _settings(pki: Pki, workload: Workload, pdp_address: str, token: Path) -> dict[str, str]:
    own = pki.workloads[workload]
    return {
        "PDP_SERVER": pdp_address,
        "PDP_CA": str(pki.bundle),
        "PDP_CERT": str(own.certificate),
        "PDP_KEY": str(own.key),
        "PDP_TOKEN_FILE": str(token),
    }


def _issue(authority: Authority) -> Pki:
    return Pki(
        bundle=authority.bundle,
        pdp=authority.issue_server("pdp"),
        gate=authority.issue_server("gate"),
        workloads={workload: authority.issue_workload(workload.name, workload.path) for workload in WORKLOADS},
    )


def _root_digest(root: Path) -> str:
    """Return what a replica pins: read here from the PDP's own disk, in production handed over by a person."""
    return hashlib.sha256(root.read_bytes()).hexdigest()


def _options(files: Mapping[str, Path]) -> list[str]:
    return [part for flag, path in files.items() for part in (flag, str(path))]


def _repeated(flag: str, values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (flag, value)]
