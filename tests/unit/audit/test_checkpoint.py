import pytest

from pdp.audit.checkpoint import BadNote, Checkpoint, VerifierKey, notes_in, opened_note, origin_of, signed_note
from pdp.limits import MAX_SIGNATURES
from tests.support.chains import signer

HELD = Checkpoint(origin="example.com/log", size=7, root=b"r" * 32)


def test_a_signed_checkpoint_reads_back_and_names_its_signer() -> None:
    ours = signer()
    assert opened_note(signed_note(HELD, ours), [signer().key, ours.key]) == (HELD, ours.key)


def test_it_is_text_in_the_form_of_a_signed_note() -> None:
    ours = signer()
    lines = signed_note(HELD, ours).split("\n")
    assert lines[:2] == ["example.com/log", "7"]
    assert lines[3] == ""
    assert lines[4].startswith(f"\u2014 {ours.key.name} ")
    assert lines[5:] == [""]


def test_a_note_that_another_implementation_signed_is_read() -> None:
    """Source: the example of golang.org/x/mod/sumdb/note, signed by PeterNeumann."""
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    from base64 import b64decode  # noqa: PLC0415 - for this one vector

    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    assert key.signed(text, b64decode(signature))
    assert not key.signed(text + " ", b64decode(signature))


def test_signatures_of_witnesses_are_passed_over() -> None:
    ours, witness = signer(), signer()
    note = signed_note(HELD, witness) + signed_note(HELD, ours).rpartition("\n\n")[2]
    assert opened_note(note, [ours.key])[1] == ours.key
    assert opened_note(note, [witness.key])[1] == witness.key


@pytest.mark.parametrize("at", range(0, 200, 3))
def test_a_note_with_any_character_changed_is_refused(at: int) -> None:
    ours = signer()
    note = signed_note(HELD, ours)
    at %= len(note)
    changed = note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1 :]
    with pytest.raises(BadNote):
        opened_note(changed, [ours.key])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: note.replace("\n7\n", "\n07\n"),
        lambda note: note.replace("\n7\n", "\n7 \n"),
        lambda note: note.replace("\n7\n", "\n-7\n"),
        lambda note: note.replace("example.com/log\n", "\n"),
        lambda note: note + note.rpartition("\n\n")[2] * MAX_SIGNATURES,
        lambda note: note.rstrip("\n"),
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("\u2014", "-"),
        lambda _note: "",
        lambda _note: "x" * 100_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(spoil: object) -> None:
    ours = signer()
    with pytest.raises(BadNote):
        opened_note(spoil(signed_note(HELD, ours)), [ours.key])  # type: ignore[operator]


def test_a_key_of_the_same_name_and_hint_does_not_count() -> None:
    ours, thief = signer(), signer()
    renamed = VerifierKey(name=ours.key.name, public=thief.key.public)
    with pytest.raises(BadNote):
        opened_note(signed_note(HELD, ours), [renamed])


def test_a_key_is_one_line_that_reads_back() -> None:
    key = signer().key
    assert VerifierKey.parse(f"{key}\n") == key
    name, hint, raw = str(key).split("+", 2)
    for spoiled in ("", "x", f"{name}+00000000+{raw}", f"{name}x+{hint}+{raw}", f"{name}+{hint}+{raw[:-4]}AAAA"):
        with pytest.raises(BadNote):
            VerifierKey.parse(spoiled)


def test_notes_that_stand_in_one_file_are_told_apart() -> None:
    ours = signer()
    notes = [
        signed_note(Checkpoint(origin=origin_of(ours.key, chain), size=3, root=b"r" * 32, lines=more), ours)
        for chain, more in (("pdp-1", ()), ("pdp-2", ("by: somebody",)), ("pdp-3", ()))
    ]
    assert notes_in("".join(notes)) == notes
    assert notes_in("\n".join(notes)) == notes
    assert notes_in("") == []
