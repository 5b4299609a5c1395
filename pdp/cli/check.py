"""`pdp check` and `pdp explain`: one question, from a terminal or a script."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pdp.cli.options import AsJson, Connection, check_proof_options, connected, noun, parse_pairs
from pdp.cli.output import write_fields, write_json
from pdp.errors import MEANINGS
from pdp.sdk import BadQuestion, Bearer, Decision, Dpop, Reason, values
from pdp.sdk._settings import read_credential
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
SubjectToken = Annotated[
    Path | None,
    typer.Option(
        "--subject-token", metavar="FILE", help="Ask for whom the token in this file names, as its holder showed it."
    ),
]
Proof = Annotated[str, typer.Option("--proof", metavar="PROOF", help="The `DPoP` header that came with that token.")]
Method = Annotated[
    str, typer.Option("--method", metavar="METHOD", help="The method of the request that the proof names.")
]
Url = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", help="Its URL, with the authority as we are configured, not as it was called."
    ),
]
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
    subject_token: SubjectToken = None,
    proof: Proof = "",
    method: Method = "",
    url: Url = "",
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
    whom = _whom(subject, subject_token, proof, method, url)
    asked = _circumstances(whom, workload, purpose, env_attr, supports)
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
    subject_token: SubjectToken = None,
    proof: Proof = "",
    method: Method = "",
    url: Url = "",
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
    whom = _whom(subject, subject_token, proof, method, url)
    asked = _circumstances(whom, workload, purpose, env_attr, supports)
    with connection.client() as client:
        decision = client.explain(action, resource, **asked)
    _answer(decision, f"{action} {resource}", as_json=as_json)


def _whom(subject: str, token: Path | None, proof: str, method: str, url: str) -> values.Subject:
    """Return whom we ask for: ourselves, a name, or the holder of a token, with the proof that it came with."""
    check_proof_options(proof, method, url)
    if token is None:
        if proof:
            raise BadQuestion(Reason.BAD_REQUEST, "a proof belongs to a token: give `--subject-token`, too")
        return subject or None
    if subject:
        raise BadQuestion(Reason.BAD_REQUEST, "the subject is given twice: by `--as` and by `--subject-token`")
    text = read_credential(token)
    return Dpop(token=text, proof=proof, method=method, url=url) if proof else Bearer(text)


def _circumstances(
    subject: values.Subject, workload: str, purpose: str, env_attr: list[str], supports: list[str]
) -> Circumstances:
    attributes = {_full(name): value for name, value in parse_pairs(env_attr).items()}
    if purpose and attributes.setdefault("request.purpose", purpose) != purpose:
        raise BadQuestion(Reason.BAD_REQUEST, "the purpose is given twice")
    return Circumstances(subject=subject, workload=workload, attributes=attributes, supports=supports or None)


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
        "dpop_nonce": decision.dpop_nonce,
        "candidate": decision.candidate,
    }


def _tell(decision: Decision, asked: str) -> None:
    miss, recheck = decision.nearest_miss, decision.recheck_after_s
    fields = {
        "reason": decision.reason.value,
        "detail": decision.detail,
        "nonce": decision.dpop_nonce,
        "rules": ", ".join(decision.determining),
        "roles": " -> ".join(decision.role_path),
        "closest": f"{miss.rule} fails on {miss.failed}: {miss.text}" if miss else "",
        "obligations": "; ".join(map(str, decision.obligations)),
        "recheck": f"after {recheck:g} s" if recheck else "",
        "world": str(decision.world_seq),
        "canary": decision.candidate,
        "decision": decision.decision_id,
    }
    write_fields(f"{decision.effect.name} {asked}", fields)
