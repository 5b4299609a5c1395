from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import BadNameError, BadRequestError
from pdp.model.names import Action, Principal, Resource, ResourcePattern
from pdp.model.request import CredentialFacts, Party, Question
from pdp.signals.locks import Lock, LockKind, LockSet, LockTarget

NOW_MS = 1_790_000_000_000
NOW_S = NOW_MS // 1000
ISSUER = "https://issuer.example"
SCORER = "workload:spiffe://prod.example/ns/ml/sa/scorer"


def question(
    subject: str = "user:alice@example.com",
    resource: str = "dataset/finance/2026",
    *,
    actors: tuple[str, ...] = (),
    workload: str = "",
    serves: str = "",
    **credential: str | int,
) -> Question:
    return Question(
        subject=Party(principal=Principal.parse(subject)),
        action=Action.parse("dataset.read"),
        resource=Resource.parse(resource),
        actors=tuple(Party(principal=Principal.parse(actor)) for actor in actors),
        workload=Principal.parse(workload) if workload else None,
        serves=Resource.parse(serves) if serves else None,
        credential=CredentialFacts(**credential),  # type: ignore[arg-type]
    )


def lock(target: str, *, name: str = "l1", start_ms: int = NOW_MS, end_ms: int = 0) -> Lock:
    return Lock(
        id=name, target=LockTarget.parse(target), reason="test", source="user:root", start_ms=start_ms, end_ms=end_ms
    )


def locked(target: str, asked: Question, *, now_ms: int = NOW_MS) -> bool:
    return LockSet.EMPTY.added(lock(target)).match(asked, now_ms) is not None


def test_no_lock_matches_nothing() -> None:
    assert LockSet.EMPTY.match(question(), NOW_MS) is None


@pytest.mark.parametrize(
    "asked",
    [
        question("user:mallory"),
        question(actors=("user:mallory",)),
        question(actors=("agent:etl", "user:mallory")),
    ],
    ids=["subject", "current actor", "nested actor"],
)
def test_a_principal_is_locked_as_subject_and_as_any_actor(asked: Question) -> None:
    assert locked("user:mallory", asked)
    assert not locked("user:mallory", question())
    assert not locked("user:Mallory", asked)


def test_a_workload_is_locked_as_subject_actor_and_source() -> None:
    assert locked(SCORER, question(workload=SCORER))
    assert locked(SCORER, question(SCORER))
    assert locked(SCORER, question(actors=(SCORER,)))


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ("workload:spiffe://prod.example/**", True),
        ("workload:spiffe://prod.example/ns/ml/**", True),
        ("workload:spiffe://prod.example/ns/m/**", False),
        ("workload:spiffe://prod.example/ns/ml/sa/scorer/**", False),
        ("workload:spiffe://prod.example.org/**", False),
    ],
)
def test_a_workload_pattern_covers_whole_segments_below_it(target: str, hit: bool) -> None:  # noqa: FBT001
    assert locked(target, question(workload=SCORER)) is hit


@pytest.mark.parametrize(
    ("pattern", "resource", "hit"),
    [
        ("dataset/finance/2026", "dataset/finance/2026", True),
        ("dataset/finance/2026", "dataset/finance/2026@7", True),
        ("dataset/finance/2026@7", "dataset/finance/2026@7", True),
        ("dataset/finance/2026@7", "dataset/finance/2026@8", False),
        ("dataset/finance/2026@7", "dataset/finance/2026", False),
        ("dataset/*/2026", "dataset/finance/2026", True),
        ("dataset/*/2026", "dataset/finance/q1/2026", False),
        ("dataset/finance/**", "dataset/finance/2026", True),
        ("dataset/finance/**", "dataset/finance/q1/2026", True),
        ("dataset/finance/**", "dataset/finance", False),
        ("dataset/**", "model/finance", False),
    ],
)
def test_a_resource_pattern_locks_what_it_names(pattern: str, resource: str, hit: bool) -> None:  # noqa: FBT001
    assert locked(f"resource:{pattern}", question(resource=resource)) is hit


def test_a_locked_model_is_locked_behind_its_endpoint() -> None:
    assert locked("resource:model/fraud@12", question(resource="endpoint/fraud", serves="model/fraud@12"))


@pytest.mark.parametrize("word", ["jti", "session"])
def test_a_token_or_session_is_locked_only_for_its_issuer(word: str) -> None:
    assert locked(f"{word}:{ISSUER}#abc", question(issuer=ISSUER, **{word: "abc"}))
    assert not locked(f"{word}:{ISSUER}#abc", question(issuer="https://other.example", **{word: "abc"}))
    assert not locked(f"{word}:{ISSUER}#abc", question(issuer=ISSUER, **{word: "abd"}))


def test_a_credential_without_an_issuer_meets_no_token_lock() -> None:
    assert not locked(f"jti:{ISSUER}#abc", question(jti="abc"))


@pytest.mark.parametrize(("issued_at_s", "hit"), [(NOW_S - 1, True), (NOW_S, True), (NOW_S + 1, False), (0, True)])
def test_issued_before_covers_its_own_second_and_tokens_that_do_not_say(issued_at_s: int, hit: bool) -> None:  # noqa: FBT001
    asked = question(issuer=ISSUER, issued_at_s=issued_at_s)
    assert locked(f"issued-before:{ISSUER}#{NOW_S}", asked) is hit
    assert locked(f"issued-before:{ISSUER}#{NOW_S}#user:alice@example.com", asked) is hit
    assert not locked(f"issued-before:{ISSUER}#{NOW_S}#user:bob", asked)


def test_issued_before_for_all_workloads_below_a_path_meets_each_of_them() -> None:
    target = f"issued-before:{ISSUER}#{NOW_S}#workload:spiffe://prod.example/ns/ml/**"
    assert locked(target, question(SCORER, issuer=ISSUER, issued_at_s=NOW_S))
    assert locked(target, question(workload=SCORER, issuer=ISSUER))
    assert not locked(target, question(SCORER, issuer=ISSUER, issued_at_s=NOW_S + 1))
    assert not locked(target, question("workload:spiffe://prod.example/ns/mlops/x", issuer=ISSUER))


def test_issued_before_only_moves_forward() -> None:
    strict = lock(f"issued-before:{ISSUER}#{NOW_S}", name="strict")
    lax = lock(f"issued-before:{ISSUER}#{NOW_S - 3600}", name="lax")
    both = LockSet.EMPTY.added(strict).added(lax)
    assert both.match(question(issuer=ISSUER, issued_at_s=NOW_S - 60), NOW_MS) is strict
    with pytest.raises(BadRequestError, match="forward"):
        both.removed("strict")


def test_issued_before_in_the_future_would_win_for_ever() -> None:
    with pytest.raises(BadRequestError, match="future"):
        lock(f"issued-before:{ISSUER}#{NOW_S + 3600}")


def test_a_certificate_is_locked_by_its_fingerprint() -> None:
    assert locked("certificate:" + "AB" * 32, question(fingerprint="ab" * 32))
    assert not locked("certificate:" + "AB" * 32, question())


def test_a_lock_holds_from_its_start_to_its_end() -> None:
    locks = LockSet.EMPTY.added(lock("user:mallory", start_ms=NOW_MS, end_ms=NOW_MS + 10))
    times = (NOW_MS - 1, NOW_MS, NOW_MS + 9, NOW_MS + 10)
    assert [locks.match(question("user:mallory"), now) is not None for now in times] == [False, True, True, False]


def test_an_ended_lock_does_not_hide_one_in_force() -> None:
    ended = lock("user:mallory", name="ended", start_ms=1, end_ms=2)
    locks = LockSet.EMPTY.added(ended).added(lock("user:mallory", name="open"))
    found = locks.match(question("user:mallory"), NOW_MS)
    assert found is not None
    assert found.id == "open"


def test_sets_are_immutable_and_removing_undoes_adding() -> None:
    for target in ("user:mallory", "resource:dataset/**", f"jti:{ISSUER}#x"):
        one = LockSet.EMPTY.added(lock(target))
        none = one.removed("l1")
        assert (len(LockSet.EMPTY), len(one), len(none)) == (0, 1, 0)
        assert none.match(question("user:mallory", issuer=ISSUER, jti="x"), NOW_MS) is None
    assert one.removed("unknown") is one


def test_a_lock_is_never_replaced() -> None:
    with pytest.raises(BadRequestError, match="already"):
        LockSet.EMPTY.added(lock("user:mallory")).added(lock("user:someone-else"))


def test_intake_asks_about_the_credential_alone() -> None:
    locks = LockSet.EMPTY.added(lock(f"jti:{ISSUER}#abc")).added(lock("resource:dataset/**", name="l2"))
    alice = [Principal.parse("user:alice")]
    hit = locks.match_credential(principals=alice, credential=CredentialFacts(issuer=ISSUER, jti="abc"), now_ms=NOW_MS)
    assert hit is not None
    assert locks.match_credential(principals=alice, credential=CredentialFacts(), now_ms=NOW_MS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user:",
        "role:admin",
        "user:*",
        "resource:dataset",
        "resource:dataset/a*",
        "jti:only-issuer",
        "jti:#id",
        "certificate:abc",
        f"issued-before:{ISSUER}",
        f"issued-before:{ISSUER}#soon",
        "workload:spiffe://prod.example/ns/m*/**",
        "user:spiffe/**",
        "serial:CN=ca#",
        "serial:CN=ca#12x",
        "serial:CN=ca#-1",
        "serial:#12",
        "serial:CN=ca#" + "9" * 60,
        "workload:cluster-a/system:serviceaccount:*:*",
        "workload:cluster-a/system:serviceaccount:ml:s*",
        "user:cluster-a/system:serviceaccount:ml:*",
        "pod-uid:only-issuer",
    ],
)
def test_a_malformed_target_is_refused(text: str) -> None:
    with pytest.raises((BadRequestError, BadNameError)):
        LockTarget.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "user:alice@example.com",
        "workload:spiffe://prod.example/ns/**",
        "resource:dataset/finance/**",
        f"jti:{ISSUER}#abc",
        f"session:{ISSUER}#abc",
        "certificate:" + "ab" * 32,
        "serial:CN=ca #1,O=prod#12345",
        f"account-uid:{ISSUER}#0d4b",
        f"pod-uid:{ISSUER}#0d4b",
        "workload:cluster-a/system:serviceaccount:ml:*",
        f"issued-before:{ISSUER}#{NOW_S}",
        f"issued-before:{ISSUER}#{NOW_S}#user:alice",
    ],
)
def test_text_and_json_spell_a_target_back(text: str) -> None:
    target = LockTarget.parse(text)
    assert str(target) == text
    assert LockTarget.from_json(target.to_json()) == target
    whole = replace(lock(text), world_seq=7)
    assert Lock.from_json(whole.to_json()) == whole


def test_an_instant_is_a_time() -> None:
    assert LockTarget.parse(f"issued-before:{ISSUER}#2026-11-20T08:00:00Z").time_s == 1_795_161_600


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"kind": "everyone"},
        {"kind": "principal"},
        {"kind": "principal", "principal": "user:a", "value": "x"},
        {"kind": "principal", "principal": "user:a", "also": 1},
        {"kind": "issued_before", "issuer": "i", "time_s": True},
        {"kind": "issued_before", "issuer": "i", "time_s": -1},
        {"kind": "jti", "issuer": "i", "value": "a\nb"},
    ],
)
def test_a_target_with_other_fields_than_its_kind_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises((BadRequestError, BadNameError)):
        LockTarget.from_json(raw)


def test_a_certificate_is_locked_by_authority_and_serial_number() -> None:
    shown = question(certificate_issuer="CN=ca", serial="2748")
    assert locked("serial:CN=ca#2748", shown)
    assert locked("serial:CN=ca#0a:bc", shown)
    for other in (
        question(certificate_issuer="CN=other", serial="2748"),
        question(certificate_issuer="CN=ca", serial="1"),
    ):
        assert not locked("serial:CN=ca#2748", other)
    assert not locked("serial:CN=ca#0", question())


def test_an_account_and_a_pod_are_locked_by_their_uids() -> None:
    shown = question(issuer=ISSUER, account_uid="a", pod_uid="p")
    assert locked(f"account-uid:{ISSUER}#a", shown)
    assert locked(f"pod-uid:{ISSUER}#p", shown)
    assert not locked(f"pod-uid:{ISSUER}#a", shown)
    assert not locked("pod-uid:https://other#p", shown)


def test_a_namespace_of_a_cluster_is_locked_whole_and_alone() -> None:
    target = "workload:cluster-a/system:serviceaccount:ml:*"
    assert locked(target, question("workload:cluster-a/system:serviceaccount:ml:scorer"))
    assert locked(target, question(workload="workload:cluster-a/system:serviceaccount:ml:x"))
    for other in (
        "workload:cluster-b/system:serviceaccount:ml:scorer",
        "workload:cluster-a/system:serviceaccount:mlops:scorer",
        "workload:system:serviceaccount:ml:scorer",
        "user:cluster-a/system:serviceaccount:ml:scorer",
    ):
        assert not locked(target, question(other))


SEGMENT = st.sampled_from(["a", "b", "c"])
PATTERN = st.tuples(
    st.sampled_from(["dataset", "model"]),
    st.lists(st.one_of(SEGMENT, st.just("*")), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["", "@1", "@2"]),
).map(lambda p: f"{p[0]}/{'/'.join(p[1])}{'/**' if p[2] else ''}{p[3]}")
RESOURCE = st.tuples(
    st.sampled_from(["dataset", "model"]),
    st.lists(SEGMENT, min_size=1, max_size=4),
    st.sampled_from(["", "@1", "@2"]),
).map(lambda r: f"{r[0]}/{'/'.join(r[1])}{r[2]}")


@given(patterns=st.lists(PATTERN, max_size=6, unique=True), resource=RESOURCE, gone=st.integers(0, 5))
def test_the_index_agrees_with_looking_at_every_lock(patterns: list[str], resource: str, gone: int) -> None:
    locks = LockSet.EMPTY
    for number, pattern in enumerate(patterns):
        locks = locks.added(lock(f"resource:{pattern}", name=f"l{number}"))
    locks = locks.removed(f"l{gone}")
    left = [pattern for number, pattern in enumerate(patterns) if number != gone]
    expected = any(ResourcePattern.parse(pattern).matches(Resource.parse(resource)) for pattern in left)
    assert (locks.match(question(resource=resource), NOW_MS) is not None) is expected


def test_every_kind_of_target_has_its_fields() -> None:
    assert {LockTarget.parse(t).kind for t in (
        "user:a", "resource:dataset/a", "jti:i#a", "session:i#a", "issued-before:i#1", "certificate:" + "0" * 64,
        "serial:CN=a#1", "account-uid:i#a", "pod-uid:i#a",
    )} == set(LockKind)  # fmt: skip
