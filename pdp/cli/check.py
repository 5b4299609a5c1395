"""`pdp check` and `pdp explain`: one question, from a terminal or a script."""

from typing import Annotated, Any

import typer

from pdp.cli.options import AsJson, Connection, connected, noun, parse_pairs
from pdp.cli.output import write_fields, write_json
from pdp.errors import MEANINGS
from pdp.sdk import BadQuestion, Decision, Reason
from pdp.sdk.values import Circumstances

app = noun("Ask one question.")

Action = Annotated[str, typer.Argument(metavar="ACTION", help="`<type>.<verb>`, such as `dataset.read`.")]
Resource = Annotated[
    str, typer.Argument(metavar="RESOURCE", help="`<type>/<path>[@<version>]`, such as `model/fraud@7`.")
]
Subject = Annotated[
    str, typer.Option("--as", metavar="PRINCIPAL", help="Ask for another subject; needs the right `decision.assert`.")
]
Workload = Annotated[str, typer.Option("--workload", metavar="WORKLOAD", help="Ask as if from this workload.")]
Purpose = Annotated[str, typer.Option("--purpose", metavar="TEXT", help="Short for `--env-attr purpose=TEXT`.")]
EnvAttr = Annotated[
    list[str], typer.Option("--env-attr", metavar="NAME=VALUE", help="A `request.` attribute; may be repeated.")
]
Supports = Annotated[
    list[str],
    typer.Option(
        "--supports",
        metavar="OBLIGATION",
        help="Obligations we carry out; an allow with another is a deny. Default: all, since a person reads the answer.",
    ),
]


@app.command()
@connected
def check(
    action: Action,
    resource: Resource,
    *,
    subject: Subject = "",
    workload: Workload = "",
    purpose: Purpose = "",
    env_attr: EnvAttr = [],  # noqa: B006 - typer copies it
    supports: Supports = [],  # noqa: B006
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Ask whether an access is allowed; exit code 0 if it is, 3 if not.

    Example: `pdp check dataset.read dataset/finance/transactions --purpose fraud-detection && ./train.sh`
    """
    asked = _circumstances(subject, workload, purpose, env_attr, supports)
    with connection.client() as client:
        decision = client.check(action, resource, **asked)
    _answer(decision, f"{action} {resource}", as_json=as_json)


@app.command()
@connected
def explain(
    action: Action,
    resource: Resource,
    *,
    subject: Subject = "",
    workload: Workload = "",
    purpose: Purpose = "",
    env_attr: EnvAttr = [],  # noqa: B006
    supports: Supports = [],  # noqa: B006
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Ask as `check` does, and be told why: the role path of an allow, the rule that came closest to a deny.

    Example: `pdp explain model.promote model/fraud@7 --as user:bob@example.com`
    """
    asked = _circumstances(subject, workload, purpose, env_attr, supports)
    with connection.client() as client:
        decision = client.explain(action, resource, **asked)
    _answer(decision, f"{action} {resource}", as_json=as_json)


def _circumstances(
    subject: str, workload: str, purpose: str, env_attr: list[str], supports: list[str]
) -> Circumstances:
    attributes = {_full(name): value for name, value in parse_pairs(env_attr).items()}
    if purpose and attributes.setdefault("request.purpose", purpose) != purpose:
        raise BadQuestion(Reason.BAD_REQUEST, "the purpose is given twice")
    return Circumstances(subject=subject or None, workload=workload, attributes=attributes, supports=supports or None)


def _full(name: str) -> str:
    return name if name.startswith("request.") else f"request.{name}"


def _answer(decision: Decision, asked: str, *, as_json: bool) -> None:
    if as_json:
        write_json(decision_json(decision))
    else:
        _tell(decision, asked)
    raise typer.Exit(
        0 if decision.allowed else MEANINGS[decision.reason].exit_code or MEANINGS[Reason.NO_GRANT].exit_code
    )


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as `--json` prints it."""
    miss = decision.nearest_miss
    return {
        "effect": decision.effect.name.lower(),
        "reason": decision.reason.value,
        "detail": decision.detail,
        "obligations": [{"name": duty.name, "value": duty.value} for duty in decision.obligations],
        "world_seq": decision.world_seq,
        "decision_id": decision.decision_id,
        "recheck_after_s": decision.recheck_after_s,
        "determining": decision.determining,
        "role_path": decision.role_path,
        "nearest_miss": miss and {"rule": miss.rule, "failed": miss.failed, "text": miss.text},
    }


def _tell(decision: Decision, asked: str) -> None:
    miss, recheck = decision.nearest_miss, decision.recheck_after_s
    fields = {
        "reason": decision.reason.value,
        "detail": decision.detail,
        "rules": ", ".join(decision.determining),
        "roles": " -> ".join(decision.role_path),
        "closest": f"{miss.rule} fails on {miss.failed}: {miss.text}" if miss else "",
        "obligations": "; ".join(map(str, decision.obligations)),
        "recheck": f"after {recheck:g} s" if recheck else "",
        "world": str(decision.world_seq),
        "decision": decision.decision_id,
    }
    write_fields(f"{decision.effect.name} {asked}", fields)
