"""The attacks on the log of FAILURE.md section 3, each against a replica that holds a good world.

The carrier is the attacker: it may forge, exchange, withhold, repeat and reorder whatever it likes. In every case the replica
must refuse with the named reason, keep its world, count the refusal and say so in `last_error`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pdp.errors import BadRequestError
from pdp.limits import MAX_ENTRY_BYTES, MAX_HEADER_BYTES, MAX_SEQ_JUMP, MAX_SIGNATURES, MAX_SIGNED_AHEAD_S
from pdp.model import canonical
from pdp.replica import Prepared, Replica
from pdp.trust.entry import (
    ENGINE,
    Head,
    Signature,
    SignedEntry,
    SignedHeartbeat,
    SnapshotHeader,
    entry_message,
    snapshot_message,
    state_digest,
)
from pdp.trust.keys import Role, RootFile, SigningKey, sign_root
from pdp.trust.verifier import Fault, Refused, TrustVerifier
from pdp.world import empty_world
from tests.support.logs import START_MS, Authority, head_of, lock_payload, take

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(3)
HEAD = head_of(CHAIN)
STRANGER = SigningKey.generate()


@pytest.fixture
def replica() -> Replica:
    return take(AUTHORITY.replica(), CHAIN)


def refused(replica: Replica, entry: SignedEntry, *, now_ms: int = START_MS) -> Fault:
    """Offer an entry that must be refused and leave everything as it was; return why."""
    before = replica.world
    result = replica.prepare(entry, now_ms=now_ms)
    assert isinstance(result, Refused), "the attack succeeded"
    assert replica.world is before
    assert replica.counters[f"refused_{result.reason.value}"] == 1
    assert replica.last_error.startswith(result.reason.value)
    return result.reason


def test_the_honest_successor_is_accepted(replica: Replica) -> None:
    assert isinstance(replica.prepare(AUTHORITY.entry(HEAD), now_ms=START_MS), Prepared)


# Arbitrary installation: V2.


@pytest.mark.holds("P7", "V2", "adv_threshold")
def test_unsigned_entry(replica: Replica) -> None:
    assert refused(replica, replace(AUTHORITY.entry(HEAD), signatures=())) is Fault.BAD_SIGNATURE


def test_entry_signed_with_an_unknown_key(replica: Replica) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, keys=[STRANGER])) is Fault.BAD_SIGNATURE


def test_entry_signed_with_an_unknown_key_under_a_known_id(replica: Replica) -> None:
    forged = AUTHORITY.entry(HEAD, keys=[STRANGER])
    signature = replace(forged.signatures[0], key_id=AUTHORITY.publish.key_id)
    assert refused(replica, replace(forged, signatures=(signature,))) is Fault.BAD_SIGNATURE


@pytest.mark.holds("V2", "adv_key_scope")
@pytest.mark.parametrize("key", [AUTHORITY.timestamp, AUTHORITY.root_key])
def test_entry_signed_with_a_key_of_another_role(replica: Replica, key: SigningKey) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, keys=[key])) is Fault.BAD_SIGNATURE


@pytest.mark.holds("V2", "adv_key_scope")
def test_signature_of_a_heartbeat_or_snapshot_does_not_fit_an_entry(replica: Replica) -> None:
    entry = AUTHORITY.entry(HEAD)
    elsewhere = AUTHORITY.publish.sign(snapshot_message(entry.header))
    assert refused(replica, replace(entry, signatures=(elsewhere,))) is Fault.BAD_SIGNATURE


def test_every_flipped_byte_of_the_header_is_noticed() -> None:
    entry, verifier = AUTHORITY.entry(HEAD), AUTHORITY.verifier()
    for place in range(len(entry.header)):
        header = bytearray(entry.header)
        header[place] ^= 1
        result = verifier.verify_entry(replace(entry, header=bytes(header)), head=HEAD, now_ms=START_MS)
        assert isinstance(result, Refused)
        assert result.reason is Fault.BAD_SIGNATURE


@pytest.mark.holds("V2")
def test_expired_key() -> None:
    retired = replace(AUTHORITY.publish.public, not_after_ms=START_MS)
    replica = take(AUTHORITY.replica(publish=[retired]), CHAIN)
    late = AUTHORITY.entry(HEAD, time_ms=START_MS + 1)
    assert refused(replica, late, now_ms=START_MS + 10) is Fault.KEY_EXPIRED


def test_key_used_before_its_validity() -> None:
    coming = replace(AUTHORITY.publish.public, not_before_ms=START_MS + 1)
    assert refused(AUTHORITY.replica(publish=[coming]), CHAIN[0]) is Fault.KEY_EXPIRED


def test_stolen_retired_key_that_dates_back() -> None:
    retired = replace(AUTHORITY.publish.public, until_seq=3)
    replica = take(AUTHORITY.replica(publish=[retired]), CHAIN)
    assert refused(replica, AUTHORITY.entry(HEAD)) is Fault.KEY_EXPIRED


@pytest.mark.holds("V2", "adv_threshold")
def test_one_key_signing_twice_does_not_reach_a_threshold_of_two() -> None:
    second = SigningKey.generate()
    verifier = AUTHORITY.verifier(publish=[AUTHORITY.publish.public, second.public], thresholds={Role.PUBLISH: 2})
    replica = Replica(verifier=verifier, world=empty_world("main"))
    once = AUTHORITY.entry()
    assert refused(replica, replace(once, signatures=once.signatures * 2)) is Fault.BAD_SIGNATURE
    both = AUTHORITY.entry(keys=[AUTHORITY.publish, second])
    assert isinstance(replica.prepare(both, now_ms=START_MS), Prepared)


@pytest.mark.holds("V2", "adv_threshold")
def test_duplicate_key_material_under_two_ids() -> None:
    genuine = canonical.loads(AUTHORITY.root().raw)
    signed = genuine["signed"]
    alias = "0" * 64
    signed["keys"][alias] = signed["keys"][AUTHORITY.publish.key_id]
    signed["roles"]["publish"] = {"threshold": 2, "keys": sorted([alias, AUTHORITY.publish.key_id])}
    signature = AUTHORITY.root_key.sign(b"portcullis/root/1\x00" + canonical.dumps(signed))
    forged = {"signed": signed, "signatures": [[signature.key_id, signature.signature.hex()]]}
    with pytest.raises(BadRequestError, match="another id"):
        RootFile.parse(canonical.dumps(forged))


@pytest.mark.holds("V2", "adv_threshold")
@pytest.mark.parametrize("threshold", [0, -1, 2, True])
def test_threshold_that_nobody_or_everybody_meets(threshold: int) -> None:
    signed = canonical.loads(AUTHORITY.root().raw)["signed"]
    signed["roles"]["publish"]["threshold"] = threshold
    signature = AUTHORITY.root_key.sign(b"portcullis/root/1\x00" + canonical.dumps(signed))
    forged = canonical.dumps({"signed": signed, "signatures": [[signature.key_id, signature.signature.hex()]]})
    with pytest.raises(BadRequestError):
        RootFile.parse(forged)


def test_root_file_of_a_stranger_does_not_succeed_ours() -> None:
    old = AUTHORITY.root()
    stranger = Authority()
    roles = {Role(name): [old.keys[key] for key in role.keys] for name, role in old.roles.items()}
    usurped = sign_root(
        tenant="main",
        version=2,
        time_ms=START_MS,
        roles={**roles, Role.ROOT: [stranger.root_key.public]},
        signing=[stranger.root_key],
    )
    assert not usurped.succeeds(old)
    rotated = sign_root(
        tenant="main",
        version=2,
        time_ms=START_MS,
        roles={**roles, Role.ROOT: [stranger.root_key.public]},
        signing=[stranger.root_key, AUTHORITY.root_key],
    )
    assert rotated.succeeds(old)


# Rollback, omission, forks: V4.


@pytest.mark.holds("V4", "adv_rollback")
def test_rollback_to_an_older_entry(replica: Replica) -> None:
    assert refused(replica, CHAIN[1]) is Fault.ROLLBACK


def test_gap_by_omission() -> None:
    longer = AUTHORITY.chain(5)
    assert refused(take(AUTHORITY.replica(), longer[:3]), longer[4]) is Fault.GAP


def test_repeated_entry(replica: Replica) -> None:
    assert refused(replica, CHAIN[2]) is Fault.DUPLICATE


@pytest.mark.holds("V4")
def test_same_number_other_digest(replica: Replica) -> None:
    other = AUTHORITY.entry(head_of(CHAIN[:2]), payload=lock_payload(77))
    assert refused(replica, other) is Fault.EQUIVOCATION


def test_successor_of_another_history(replica: Replica) -> None:
    fork = [*CHAIN[:2], AUTHORITY.entry(head_of(CHAIN[:2]), payload=lock_payload(77))]
    assert refused(replica, AUTHORITY.entry(head_of(fork))) is Fault.EQUIVOCATION


def test_first_entry_grafted_onto_a_chain() -> None:
    with pytest.raises(BadRequestError):
        AUTHORITY.entry(HEAD, prev="")


@pytest.mark.holds("V4", "adv_rollback")
def test_snapshot_below_the_high_water_mark() -> None:
    snapshot = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2]))
    restarted = AUTHORITY.replica()
    restarted.remember(3)
    result = restarted.prepare_snapshot(snapshot, now_ms=START_MS)
    assert isinstance(result, Refused)
    assert result.reason is Fault.ROLLBACK


@pytest.mark.holds("F4", "V4", "V9", "adv_rollback")
def test_wiped_store_cannot_roll_a_replica_back(replica: Replica) -> None:
    # FLUSHALL: the store is empty, and a PDP that believes it signs heartbeats over nothing.
    late = START_MS + 600_000
    result = replica.heard(AUTHORITY.heartbeat(Head(seq=0, digest=b""), time_ms=late), now_ms=late, mono_s=700.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.ROLLBACK
    assert replica.world.seq == 3


@pytest.mark.holds("V5", "adv_rollback")
def test_wiped_replica_fed_an_old_world_never_takes_it_for_fresh() -> None:
    # The mark is lost with the disk; the old world verifies, and only the heartbeat's age gives it away.
    old = take(AUTHORITY.replica(), CHAIN[:1])
    day_later = START_MS + 86_400_000
    old.heard(AUTHORITY.heartbeat(old.head), now_ms=day_later, mono_s=5.0)
    assert old.staleness_s(now_ms=day_later, mono_s=5.0) >= 86_400


# Mix-and-match: V2 with the payload's digest, V4.


@pytest.mark.holds("P7", "V7")
def test_tampered_payload(replica: Replica) -> None:
    entry = AUTHORITY.entry(HEAD)
    tampered = replace(entry, payload=entry.payload.replace(b"mallory4", b"charlie4"))
    assert refused(replica, tampered) is Fault.PAYLOAD_MISMATCH


@pytest.mark.holds("V7")
def test_swapped_payloads(replica: Replica) -> None:
    one, other = AUTHORITY.entry(HEAD), AUTHORITY.entry(HEAD, payload=lock_payload(9))
    assert refused(replica, replace(one, payload=other.payload)) is Fault.PAYLOAD_MISMATCH


def test_snapshot_with_the_state_of_another(replica: Replica) -> None:
    older = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2]))
    mixed = replace(AUTHORITY.snapshot(replica), state=older.state)
    result = AUTHORITY.replica().prepare_snapshot(mixed, now_ms=START_MS)
    assert isinstance(result, Refused)
    assert result.reason is Fault.PAYLOAD_MISMATCH


def test_snapshot_whose_state_carries_a_time_beyond_its_header() -> None:
    """`signed_ms` becomes the time of every decision: one far ahead would end every lock and role with an end (F12)."""
    held = take(AUTHORITY.replica(), CHAIN)
    held.commit(replace(_prepared(held), world=replace(held.world, signed_ms=2 * START_MS)))
    result = AUTHORITY.replica().prepare_snapshot(AUTHORITY.snapshot(held), now_ms=START_MS)
    assert isinstance(result, Refused)
    assert result.reason is Fault.PAYLOAD_MISMATCH


def _prepared(replica: Replica) -> Prepared:
    result = replica.prepare(AUTHORITY.entry(HEAD), now_ms=START_MS)
    assert isinstance(result, Prepared)
    return result


def test_snapshot_whose_state_stands_elsewhere_than_its_header() -> None:
    older = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2]))
    header = SnapshotHeader(
        tenant="main", seq=3, head=HEAD.digest.hex(), state_digest=state_digest(older.state), time_ms=START_MS
    ).encode()
    forged = replace(older, header=header, signatures=(AUTHORITY.publish.sign(snapshot_message(header)),))
    result = AUTHORITY.replica().prepare_snapshot(forged, now_ms=START_MS)
    assert isinstance(result, Refused)
    assert result.reason is Fault.PAYLOAD_MISMATCH


# Wrong software: V3.


@pytest.mark.holds("V3")
def test_entry_of_another_tenant_under_the_same_keys(replica: Replica) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, tenant="other")) is Fault.WRONG_TENANT


@pytest.mark.holds("V3")
def test_heartbeat_of_another_tenant(replica: Replica) -> None:
    alien = replace(AUTHORITY, tenant="other").heartbeat(HEAD)
    result = replica.heard(alien, now_ms=START_MS, mono_s=0.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.WRONG_TENANT


def test_root_file_of_another_tenant() -> None:
    with pytest.raises(BadRequestError):
        TrustVerifier(replace(AUTHORITY, tenant="other").root(), "main")


# Indefinite freeze: V5.


@pytest.mark.holds("P6", "V5")
def test_freeze_by_withholding_everything(replica: Replica) -> None:
    replica.heard(AUTHORITY.heartbeat(HEAD), now_ms=START_MS, mono_s=10.0)
    assert replica.staleness_s(now_ms=START_MS, mono_s=10.0) == 0
    assert replica.staleness_s(now_ms=START_MS, mono_s=310.0) == 300


def test_freeze_by_repeating_an_old_heartbeat(replica: Replica) -> None:
    heartbeat = AUTHORITY.heartbeat(HEAD)
    assert replica.heard(heartbeat, now_ms=START_MS, mono_s=10.0) is True
    assert replica.heard(heartbeat, now_ms=START_MS, mono_s=300.0) is False
    assert replica.staleness_s(now_ms=START_MS, mono_s=310.0) == 300


def test_freeze_by_delaying_every_heartbeat(replica: Replica) -> None:
    late = START_MS + 90_000
    assert replica.heard(AUTHORITY.heartbeat(HEAD), now_ms=late, mono_s=100.0) is True
    assert replica.staleness_s(now_ms=late, mono_s=100.0) == 90


@pytest.mark.holds("V5")
def test_freeze_by_withholding_entries_and_passing_heartbeats(replica: Replica) -> None:
    replica.heard(AUTHORITY.heartbeat(HEAD), now_ms=START_MS, mono_s=10.0)
    withheld = head_of([*CHAIN, AUTHORITY.entry(HEAD)])
    later = START_MS + 60_000
    assert replica.heard(AUTHORITY.heartbeat(withheld, time_ms=later), now_ms=later, mono_s=70.0) is False
    assert replica.staleness_s(now_ms=later, mono_s=70.0) == 60


def test_heartbeat_signed_with_a_publish_key(replica: Replica) -> None:
    result = replica.heard(AUTHORITY.heartbeat(HEAD, key=AUTHORITY.publish), now_ms=START_MS, mono_s=0.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.BAD_SIGNATURE


def test_heartbeat_that_names_another_entry_under_our_number(replica: Replica) -> None:
    result = replica.heard(AUTHORITY.heartbeat(Head(seq=3, digest=b"\x00" * 32)), now_ms=START_MS, mono_s=0.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.EQUIVOCATION


@pytest.mark.holds("F12", "V5")
def test_clock_that_ran_away(replica: Replica) -> None:
    far = START_MS + round(MAX_SIGNED_AHEAD_S * 1000) + 1
    assert refused(replica, AUTHORITY.entry(HEAD, time_ms=far)) is Fault.FROM_THE_FUTURE
    result = replica.heard(AUTHORITY.heartbeat(HEAD, time_ms=far), now_ms=START_MS, mono_s=0.0)
    assert isinstance(result, Refused)
    assert replica.now_ms(START_MS) == START_MS


@pytest.mark.holds("V5")
def test_expired_entry(replica: Replica) -> None:
    short = AUTHORITY.entry(HEAD, expires_ms=START_MS + 1)
    assert refused(replica, short, now_ms=START_MS + 1) is Fault.EXPIRED


@pytest.mark.holds("F12")
def test_expired_entry_revived_by_a_clock_set_back(replica: Replica) -> None:
    short = AUTHORITY.entry(HEAD, expires_ms=START_MS)
    assert refused(replica, short, now_ms=START_MS - 3_600_000) is Fault.EXPIRED


@pytest.mark.holds("F12")
def test_backdated_entry(replica: Replica) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, time_ms=START_MS - 1)) is Fault.TIME_REVERSED


# Fast-forward: V4.


def _snapshot_at(replica: Replica, seq: int) -> object:
    world = replace(replica.world, seq=seq)
    moved = Replica(verifier=replica.verifier, world=world)
    return replica.prepare_snapshot(AUTHORITY.snapshot(moved), now_ms=START_MS)


@pytest.mark.holds("V4")
def test_fast_forward_by_a_stolen_publish_key(replica: Replica) -> None:
    replica.heard(AUTHORITY.heartbeat(HEAD), now_ms=START_MS, mono_s=0.0)
    result = _snapshot_at(replica, 1_000)
    assert isinstance(result, Refused)
    assert result.reason is Fault.AHEAD_OF_HEARTBEAT


def test_fast_forward_to_the_end_of_the_numbers(replica: Replica) -> None:
    result = _snapshot_at(replica, 3 + MAX_SEQ_JUMP + 1)
    assert isinstance(result, Refused)
    assert result.reason is Fault.JUMP
    with pytest.raises(BadRequestError):
        AUTHORITY.entry(HEAD, seq=2**53)


# Endless data: V1.


@pytest.mark.holds("V1", "L1")
@pytest.mark.parametrize(
    "inflate",
    [
        lambda entry: replace(entry, header=b"x" * (MAX_HEADER_BYTES + 1)),
        lambda entry: replace(entry, payload=b"x" * (MAX_ENTRY_BYTES + 1)),
        lambda entry: replace(entry, signatures=entry.signatures * (MAX_SIGNATURES + 1)),
    ],
    ids=["header", "payload", "signatures"],
)
def test_oversized_entry(replica: Replica, inflate: Callable[[SignedEntry], SignedEntry]) -> None:
    assert refused(replica, inflate(AUTHORITY.entry(HEAD))) is Fault.OVERSIZED


@pytest.mark.holds("V1", "L1")
def test_oversized_heartbeat(replica: Replica) -> None:
    huge = SignedHeartbeat(body=b"x" * (MAX_HEADER_BYTES + 1), signature=Signature(key_id="", signature=b""))
    result = replica.heard(huge, now_ms=START_MS, mono_s=0.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.OVERSIZED


# Engine downgrade: V6.


@pytest.mark.holds("V6", "F28")
def test_entry_for_a_future_engine(replica: Replica) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, min_engine=ENGINE + 1)) is Fault.ENGINE_TOO_OLD


# Malformed, though signed: a publisher's defect must not move the world either.


def _signed(header: bytes, payload: bytes) -> SignedEntry:
    return SignedEntry(header=header, payload=payload, signatures=(AUTHORITY.publish.sign(entry_message(header)),))


@pytest.mark.holds("L9", "P11", "adv_malformed_peer")
@pytest.mark.parametrize("header", [b"", b"{}", b"[1]", b"null", b"\xff\xfe", b'{"seq": 4}', b"{" * 5_000])
def test_signed_nonsense(replica: Replica, header: bytes) -> None:
    assert refused(replica, _signed(header, b"{}")) is Fault.MALFORMED


def test_signed_header_with_one_field_more(replica: Replica) -> None:
    fields = canonical.loads(AUTHORITY.entry(HEAD).header) | {"also": 1}
    assert refused(replica, _signed(canonical.dumps(fields), b"{}")) is Fault.MALFORMED


@pytest.mark.holds("F19", "P7")
@pytest.mark.parametrize("kind", ["unheard-of", "lock", "policy", "assets", "unlock"])
def test_poison_that_makes_no_valid_world(replica: Replica, kind: str) -> None:
    assert refused(replica, AUTHORITY.entry(HEAD, kind=kind, payload={"id": 7})) is Fault.FOLD_REFUSED
