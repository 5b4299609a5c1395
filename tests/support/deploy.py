"""The files below deploy/, read as what they are, and the command lines in them held against our own commands."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
import yaml

import pdp.cli.app
import sidecar.cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMMANDS: Mapping[str, Any] = {
    "pdp": typer.main.get_command(pdp.cli.app.root),
    "pdp-sidecar": typer.main.get_command(sidecar.cli.app),
}


def objects(name: str) -> list[dict[str, Any]]:
    """Return the objects of one file of plain manifests."""
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def pod(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the pod that an object makes; None: it makes none."""
    if item["kind"] == "InferenceService":  # KServe's predictor is a pod's specification, and `labels`
        return {name: value for name, value in item["spec"]["predictor"].items() if name != "labels"}
    return item.get("spec", {}).get("template", {}).get("spec")


def containers(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the containers of an object, those that run first included."""
    spec = pod(item) or {}
    yield from [*spec.get("initContainers", ()), *spec.get("containers", ())]


def accepted(line: Sequence[str]) -> dict[str, Any]:
    """Return what our own command reads out of a command line, or fail as the command would."""
    command, words = COMMANDS[Path(line[0]).name], list(line[1:])
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    return dict(command.make_context(line[0], words).params)
