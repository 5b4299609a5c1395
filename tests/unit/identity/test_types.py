import copy
import dataclasses
import pickle
import re
from pathlib import Path

import pytest

import pdp
from pdp.identity import gate
from pdp.identity.types import AssertedIdentity, VerifiedIdentity
from pdp.identity.verifier import VerifiedToken
from pdp.model.names import Principal
from pdp.model.request import CredentialFacts, Party
from tests.support.tokens import good_token, judge

PARTY = Party(principal=Principal.parse("user:mallory"))


@pytest.fixture
def identity() -> VerifiedIdentity:
    outcome = judge(f"Bearer {good_token()}")
    assert isinstance(outcome, VerifiedIdentity)
    return outcome


@pytest.mark.parametrize("seal", [None, object(), True, "seal"])
def test_nobody_else_constructs_one(seal: object) -> None:
    with pytest.raises(TypeError, match=r"only pdp\.identity"):
        VerifiedIdentity(party=PARTY, facts=CredentialFacts(), seal=seal)


def test_nobody_constructs_one_without_a_seal() -> None:
    with pytest.raises(TypeError, match="seal"):
        VerifiedIdentity(party=PARTY, facts=CredentialFacts())  # type: ignore[call-arg]


def test_replace_does_not_forge(identity: VerifiedIdentity) -> None:
    with pytest.raises((TypeError, ValueError), match="seal"):
        dataclasses.replace(identity, party=PARTY)
    with pytest.raises(TypeError, match=r"only pdp\.identity"):
        dataclasses.replace(identity, party=PARTY, seal=None)


def test_copies_are_the_value_itself(identity: VerifiedIdentity) -> None:
    assert copy.copy(identity) is identity
    assert copy.deepcopy(identity) is identity


def test_bytes_never_become_an_identity(identity: VerifiedIdentity) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(identity, protocol)
    blank = object.__new__(VerifiedIdentity)
    with pytest.raises(TypeError, match="not restored"):
        blank.__setstate__([PARTY])


def test_it_cannot_be_changed_or_subclassed(identity: VerifiedIdentity) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.party = PARTY  # type: ignore[misc]
    with pytest.raises(TypeError):
        identity.attributes["subject.department"] = "board"  # type: ignore[index]
    with pytest.raises(TypeError, match="no other kinds"):
        type("Forged", (VerifiedIdentity,), {})


def test_a_verified_token_is_sealed_too() -> None:
    fields = {field.name: None for field in dataclasses.fields(VerifiedToken)}
    with pytest.raises(TypeError, match=r"only pdp\.identity"):
        VerifiedToken(**fields, seal=object())  # type: ignore[arg-type]


def test_only_a_verified_identity_asserts_another(identity: VerifiedIdentity) -> None:
    assert AssertedIdentity(by=identity, party=PARTY).by is identity
    with pytest.raises(TypeError, match="only a verified identity"):
        AssertedIdentity(by=PARTY, party=PARTY)  # type: ignore[arg-type]


def test_no_other_room_touches_the_seal() -> None:
    root = Path(pdp.__file__).parent
    sources = [*root.rglob("*.py"), *(root.parent / "sidecar").rglob("*.py")]
    assert len(sources) > 20
    # A name, not the quoted one by which generated code calls a message.
    named = re.compile(r"(?<![\w'])_SEAL\b")
    users = {path.relative_to(root).parts[0] for path in sources if named.search(path.read_text("utf-8"))}
    assert users == {"identity"}


@pytest.mark.holds("S9", "adv_secret_leak")
def test_nothing_that_is_printed_holds_the_token() -> None:
    compact = good_token()
    credential = gate.present(f"Bearer {compact}")
    parsed = gate.parse(compact.encode())
    for shown in (repr(credential), repr(parsed), str(parsed)):
        assert compact.rpartition(".")[2] not in shown
