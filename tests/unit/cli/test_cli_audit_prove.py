import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import segments
from pdp.adapters.audit_key import audit_signer
from tests.support.chains import signer, written

Pdp = Callable[..., Any]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    written(tmp_path / "audit", audit_signer(tmp_path))
    return tmp_path


def saved(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_checkpoint_kept_elsewhere_and_the_key_vouch_for_the_log(pdp: Pdp, state: Path) -> None:
    kept = saved(state / "kept", pdp("audit", "checkpoint", state / "audit").out)
    ended = pdp("audit", "verify", state / "audit", "--key", state / "audit.pub", "--checkpoint", kept, "--json")
    (told,) = ended.json["chains"]
    assert (ended.code, told["verdict"], told["signed"]) == (0, "ok", 26)
    assert told["key"] == (state / "audit.pub").read_text().strip()


def test_a_log_cut_behind_an_earlier_segment_is_exit_code_3_against_it(pdp: Pdp, state: Path) -> None:
    kept = saved(state / "kept", pdp("audit", "checkpoint", state / "audit").out)
    segments(state / "audit")[-1].path.unlink()
    assert pdp("audit", "verify", state / "audit").code == 0
    assert pdp("audit", "verify", state / "audit", "--checkpoint", kept).code == 3


def test_a_key_that_did_not_sign_it_is_exit_code_1(pdp: Pdp, state: Path) -> None:
    other = saved(state / "other.pub", f"{signer().key}\n")
    ended = pdp("audit", "verify", state / "audit", "--key", other)
    assert (ended.code, "that you named" in ended.out) == (1, True)


def test_a_checkpoint_whose_chain_is_not_here_is_no_success(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", signer())
    kept = saved(state / "kept", pdp("audit", "checkpoint", tmp_path / "elsewhere").out)
    assert pdp("audit", "verify", state / "audit", "--checkpoint", kept).code == 2


def test_a_record_is_proved_without_the_log(pdp: Pdp, state: Path) -> None:
    proof = saved(state / "proof", pdp("audit", "prove", "d7", state / "audit").out)
    ended = pdp("audit", "check-proof", proof, "--key", state / "audit.pub")
    assert (ended.code, "stands under the checkpoint over 26 records" in ended.out) == (0, True)
    assert "compare --key" in pdp("audit", "check-proof", proof).out
    assert pdp("audit", "check-proof", proof, "--json").json["record"]["decision_id"] == "d7"


def test_every_record_up_to_the_last_checkpoint_can_be_named_by_chain_and_number(pdp: Pdp, state: Path) -> None:
    (name,) = {segment.chain for segment in segments(state / "audit")}
    for n in (1, 13, 26):
        proof = saved(state / "proof", pdp("audit", "prove", f"{name}:{n}", state / "audit").out)
        assert pdp("audit", "check-proof", proof, "--key", state / "audit.pub").code == 0
    ended = pdp("audit", "prove", f"{name}:27", state / "audit")
    assert (ended.code, "not signed yet" in ended.err) == (2, True)


def test_growth_since_a_checkpoint_is_proved(pdp: Pdp, state: Path) -> None:
    earlier = saved(state / "earlier", pdp("audit", "checkpoint", state / "audit").out)
    written(state / "audit", audit_signer(state), segments=1)
    proof = saved(state / "proof", pdp("audit", "prove", "d7", state / "audit", "--since", earlier).out)
    checked = ("audit", "check-proof", proof, "--key", state / "audit.pub")
    assert pdp(*checked, "--since", earlier).code == 0
    assert pdp(*checked).code == 0


def test_a_log_that_forked_since_a_checkpoint_cannot_prove_growth(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    written(fork, audit_signer(state), each=4)
    held = saved(state / "held", pdp("audit", "checkpoint", fork).out)
    proof = saved(state / "proof", pdp("audit", "prove", "d7", state / "audit", "--since", held).out)
    ended = pdp("audit", "check-proof", proof, "--key", state / "audit.pub", "--since", held)
    assert (ended.code, "not shown to go on" in ended.out) == (1, True)


@pytest.mark.parametrize("part", ["record", "checkpoint", "inclusion", "key"])
def test_a_proof_of_which_anything_was_changed_does_not_hold(pdp: Pdp, state: Path, part: str) -> None:
    proof = pdp("audit", "prove", "d7", state / "audit").json
    held = proof[part]
    if isinstance(held, list):
        proof[part] = ["00" * 32, *held[1:]]
    elif part == "record":
        proof[part] = held.replace("d7", "d8")
    else:  # of a base64 text that is another each time, one letter
        proof[part] = f"{held[:-12]}{'B' if held[-12] == 'A' else 'A'}{held[-11:]}"
    assert proof[part] != held
    path = saved(state / "proof", json.dumps(proof))
    assert pdp("audit", "check-proof", path).code == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"record": 1}', "\x00", '{"a":' * 5000])
def test_what_is_no_proof_is_exit_code_2(pdp: Pdp, state: Path, text: str) -> None:
    ended = pdp("audit", "check-proof", saved(state / "proof", text))
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_a_record_that_is_not_there_and_a_file_that_is_no_key_are_one_line(pdp: Pdp, state: Path) -> None:
    for command in (
        ("prove", "d999", state / "audit"),
        ("prove", "d7", state / "nowhere"),
        ("verify", state / "audit", "--key", saved(state / "x", "no key")),
        ("verify", state / "audit", "--key", state / "gone"),
    ):
        ended = pdp("audit", *command)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
