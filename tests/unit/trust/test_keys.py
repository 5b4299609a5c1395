from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_ROOT_FILE_BYTES
from pdp.trust.keys import PublicKey, Role, RootFile, SigningKey, sign_root
from tests.support.logs import START_MS, Authority

AUTHORITY = Authority()


@pytest.mark.holds("S9", "adv_secret_leak")
def test_a_key_survives_its_file_and_never_prints_itself() -> None:
    key = SigningKey.generate()
    again = SigningKey.from_pem(key.to_pem())
    assert again.key_id == key.key_id
    assert again.sign(b"x") == key.sign(b"x")
    assert "PRIVATE" not in repr(key)


def test_a_signature_is_that_of_one_key_over_one_message() -> None:
    key = SigningKey.generate()
    signature = key.sign(b"message").signature
    assert key.public.signed(b"message", signature)
    assert not key.public.signed(b"another", signature)
    assert not SigningKey.generate().public.signed(b"message", signature)
    assert not key.public.signed(b"message", b"short")


def test_another_kind_of_key_is_refused() -> None:
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem in (other, b"", b"-----BEGIN NOTHING-----"):
        with pytest.raises(ConfigError):
            SigningKey.from_pem(pem)


def test_the_root_file_says_again_what_it_was_told() -> None:
    root = AUTHORITY.root()
    assert RootFile.parse(root.raw) == root
    assert root.digest == sha256(root.raw).hexdigest()
    assert [key.key_id for key in root.holders(Role.PUBLISH)] == [AUTHORITY.publish.key_id]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"signed":{},"signatures":[]}', b"x" * (MAX_ROOT_FILE_BYTES + 1)])
def test_what_is_no_root_file_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        RootFile.parse(raw)


@pytest.mark.holds("F18")
def test_every_flipped_byte_of_a_root_file_is_noticed() -> None:
    raw = AUTHORITY.root().raw
    for place in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[place] ^= 1
        with pytest.raises(BadRequestError):
            RootFile.parse(bytes(damaged))


def test_a_root_file_not_signed_by_its_own_root_keys_is_refused() -> None:
    with pytest.raises(BadRequestError, match="root keys"):
        sign_root(
            tenant="main",
            version=1,
            time_ms=START_MS,
            roles={
                Role.ROOT: [AUTHORITY.root_key.public],
                Role.PUBLISH: [AUTHORITY.publish.public],
                Role.TIMESTAMP: [AUTHORITY.timestamp.public],
            },
            signing=[AUTHORITY.publish],
        )


def test_one_key_in_two_roles_is_refused() -> None:
    with pytest.raises(BadRequestError, match="one role"):
        replace(AUTHORITY, timestamp=AUTHORITY.publish).root()


def test_a_role_without_keys_is_refused() -> None:
    with pytest.raises(BadRequestError):
        AUTHORITY.root(publish=[])


@pytest.mark.parametrize(
    ("time_ms", "seq", "valid"), [(9, 1, False), (10, 1, True), (20, 1, True), (21, 1, False), (15, 6, False)]
)
def test_validity_is_from_to_and_until_a_number(time_ms: int, seq: int, valid: bool) -> None:  # noqa: FBT001
    key = replace(AUTHORITY.publish.public, not_before_ms=10, not_after_ms=20, until_seq=5)
    assert key.valid(time_ms=time_ms, seq=seq) is valid
    assert PublicKey.from_json(key.to_json()) == key


def test_a_version_is_succeeded_only_by_the_next_one() -> None:
    old = AUTHORITY.root()
    roles = {role: old.holders(role) for role in Role}
    for version, follows in ((1, False), (2, True), (3, False)):
        new = sign_root(tenant="main", version=version, time_ms=START_MS, roles=roles, signing=[AUTHORITY.root_key])
        assert new.succeeds(old) is follows
