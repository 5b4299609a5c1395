"""Ids and addresses of MLflow, each in one spelling: a run, a logged model, a version, a place where bytes lie.

A database takes `01` for `1`, and some take `Fraud` for `fraud`; an id that is not in its own form is refused, never repaired.
Bytes lie at `<experiment>/<run>/artifacts/...` or `<experiment>/models/m-<id>/artifacts/...`; another layout is refused.

Source: ENFORCEMENT.md 3.3 (artifact index).
"""

import re
from dataclasses import dataclass
from typing import Final

from sidecar.mlflow.words import RefusedError

_EXPERIMENT: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_RUN: Final = re.compile(r"[0-9a-f]{32}")
_LOGGED: Final = re.compile(r"m-[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,255}")
_FORBIDDEN: Final = frozenset("%\\#?;*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where bytes lie: below the artifacts of a run or of a logged model.

    Attributes:
        of: The run's or the logged model's id; the latter begins with `m-`.
        path: Below its artifacts; empty: all of them.
        experiment: As the address said; empty: it said none.
    """

    of: str
    path: str = ""
    experiment: str = ""

    @property
    def key(self) -> str:
        """How the inventory writes it (`resource.artifacts`)."""
        return f"{self.of}/{self.path}" if self.path else self.of

    @property
    def logged(self) -> bool:
        """Whether it belongs to a logged model, and not to a run."""
        return self.of.startswith("m-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a registered model."""

    name: str
    version: str

    @property
    def resource(self) -> str:
        """Its name in the inventory."""
        return f"model/{self.name}@{self.version}"


def experiment(text: str) -> str:
    """Return an experiment's id, or raise `RefusedError`."""
    return _checked(_EXPERIMENT, text, "the id of an experiment")


def run(text: str) -> str:
    """Return a run's id, or raise `RefusedError`."""
    return _checked(_RUN, text, "the id of a run")


def logged(text: str) -> str:
    """Return a logged model's id, or raise `RefusedError`."""
    return _checked(_LOGGED, text, "the id of a logged model")


def name(text: str) -> str:
    """Return a registered model's name, or raise `RefusedError`: the inventory has a grammar of its own."""
    return _checked(_NAME, text, "the name of a model in the inventory (letters, digits, `.`, `_`, `~`, `-`)")


def version(text: str) -> str:
    """Return a version's number, or raise `RefusedError`."""
    return _checked(_NUMBER, text, "the number of a version")


def _checked(grammar: re.Pattern[str], text: str, what: str) -> str:
    if not grammar.fullmatch(text):
        raise RefusedError(f"not {what}")
    return text


def inner(path: str) -> str:
    """Return a path inside an artifact directory (empty: all of it).

    Raises:
        RefusedError: It leaves the directory, or a server that decodes once more would read another one.
    """
    if not path:
        return ""
    segments = path.split("/")
    if any(part in {"", ".", ".."} for part in segments) or not _FORBIDDEN.isdisjoint(path) or not path.isprintable():
        raise RefusedError("not one path below the artifacts")
    return path


def below_root(path: str) -> Place:
    """Return what lies at a path below the artifact root.

    Raises:
        RefusedError: No layout of ours: the root itself, an experiment as a whole, traces, anything else.
    """
    match inner(path).split("/"):
        case [at, "models", of, "artifacts", *rest] if _LOGGED.fullmatch(of):
            return Place(of=of, path="/".join(rest), experiment=experiment(at))
        case [at, of, "artifacts", *rest] if _RUN.fullmatch(of):
            return Place(of=of, path="/".join(rest), experiment=experiment(at))
    raise RefusedError("no artifacts of a run or a logged model lie there")


def source(text: str) -> Place | Version | None:
    """Return what a version is made from; None: an address that says nothing of whose it is (a bucket, a file)."""
    try:
        scheme, _, rest = text.partition(":/")
        if scheme == "runs":
            of, _, path = rest.partition("/")
            return Place(of=run(of), path=inner(path))
        if scheme == "models" and _LOGGED.fullmatch(rest):
            return Place(of=rest)
        if scheme == "models":
            of, _, number = rest.partition("/")
            return Version(name=name(of), version=version(number))
        if scheme == "mlflow-artifacts":
            return below_root(rest)
    except RefusedError:
        return None
    return None


def overlap(one: str, other: str) -> bool:
    """Tell whether two places, as the inventory writes them, share bytes: one is the other, or lies in it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
