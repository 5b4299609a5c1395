"""Every trap that a file can show is found, at its place, under its number; a sound policy has none."""

from random import Random

import pytest

from pdp.engine.casbin_codes import NARROWER
from pdp.engine.casbin_lint import _compiled, find_traps, lint_files
from pdp.engine.casbin_traps import Answer, Trap
from pdp.engine.findings import errors

ALLOW = "some(where (p.eft == allow))"
BOTH = f"{ALLOW} && !some(where (p.eft == deny))"
EQUAL = "r.sub == p.sub && r.obj == p.obj && r.act == p.act"
ALICE = "p, alice, data1, read"
ROLE = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"


def model(
    matcher: str = EQUAL, *, policy: str = "sub, obj, act", effect: str = ALLOW, roles: str = "", more: str = ""
) -> str:
    g = f"[role_definition]\n{roles}\n" if roles else ""
    return (
        f"[request_definition]\nr = sub, obj, act\n[policy_definition]\np = {policy}\n{g}"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n{more}"
    )


def keyed(function: str) -> str:
    return model(
        f"r.sub == p.sub && {function}(r.obj, p.obj) && r.act == p.act", policy="sub, obj, act, eft", effect=BOTH
    )


def path(pattern: str, effect: str = "allow") -> str:
    return f"p, alice, {pattern}, read, {effect}"


TWO_SETS = (
    "[request_definition]\nr = sub\nr2 = sub\n[policy_definition]\np = sub\np2 = sub, eft\n[policy_effect]\n"
    f"e = {ALLOW}\ne2 = {BOTH}\n[matchers]\nm = r.sub == p.sub\nm2 = r2.sub == p2.sub\n"
)
CHAIN = "\n".join(f"g, r{level}, r{level + 1}" for level in range(10))

TRAPS = {
    "a policy that allows by default": (model(effect="!some(where (p.eft == deny))"), ALICE, "D-01 PC120"),
    "no rows": (model(), "# nothing\n", "D-02 PC501"),
    "a deny that says nothing": (model(policy="sub, obj, act, eft"), f"{ALICE}, Deny", "D-04 PC101"),
    "no effect": (model(effect="all(p.eft == allow)"), ALICE, "D-05 PC102"),
    "half a set": (model(more="m2 = r.sub == p.sub"), ALICE, "D-05 PC103"),
    "another effect in a set": (
        TWO_SETS,
        "p, alice",
        "D-05 ",
    ),
    "a priority that is text": (
        model(policy="priority, sub, obj, act, eft", effect="priority(p.eft) || deny"),
        "p, high, alice, data1, read, allow",
        "D-07 PC140",
    ),
    "a priority below zero": (
        model(policy="priority, sub, obj, act, eft", effect="priority(p.eft) || deny"),
        "p, -1, alice, data1, read, allow",
        "D-07 ",
    ),
    "tied priorities": (
        model(policy="priority, sub, obj, act, eft", effect="priority(p.eft) || deny"),
        "p, 1, alice, data1, read, allow\np, 1, alice, data1, read, deny",
        "D-07 PC143",
    ),
    "the subject elsewhere": (
        model(policy="obj, sub, act, eft", effect="subjectPriority(p.eft) || deny"),
        "p, data1, alice, read, allow",
        "D-08 ",
    ),
    "no subject": (
        model("r.sub == p.role", policy="role, obj, act, eft", effect="subjectPriority(p.eft) || deny"),
        "p, alice, data1, read, allow",
        "D-08 PC141",
    ),
    "a subject outside the roles": (
        model(ROLE, policy="sub, obj, act, eft", effect="subjectPriority(p.eft) || deny", roles="g = _, _"),
        "p, alice, data1, read, allow\ng, bob, admin",
        "D-08 PC144",
    ),
    "a row that vanishes": (model(), f"{ALICE}\npp, bob, data2, deny", "D-09 PC110"),
    "a byte-order mark": (model(), f"\ufeff{ALICE}\n{ALICE}", "D-09 PC110"),
    "a gap": (model(more="m3 = r.sub == p.sub"), ALICE, "D-09 PC111"),
    "a row too short": (model(), f"{ALICE}\np, bob, data2", "D-10 PC112"),
    "a role row too long": (model(ROLE, roles="g = _, _"), f"{ALICE}\ng, alice, admin, domain1", "D-11 PC113"),
    "a quoted comma": (model(), 'p, alice, "a, b", read', "D-12 PC114"),
    "a note": (model(), f"{ALICE} # ours", "D-12 PC114"),
    "a stray bracket": (model(), f"{ALICE})", "D-12 PC114"),
    "a comma in brackets": (model(), "p, alice, f(a, b), read", "D-12 PC114"),
    "a zero-width space": (model(), "p, ali\u200bce, data1, read", "D-13 PC115"),
    "a blank": (model(), f"{ALICE}\np, , data1, read", "D-13 PC115"),
    "a repeated row": (model(), f"{ALICE}\n{ALICE}", "D-16 PC117"),
    "a repeated key": (model(more=f"m = {EQUAL}"), ALICE, "D-16 PC118"),
    "bad syntax": (model("r.sub == "), ALICE, "D-17 PC201"),
    "an unknown field": (model("r.subject == p.sub"), ALICE, "D-17 PC203"),
    "a misspelt section": (model().replace("[matchers]", "[matcher]"), ALICE, "D-17 PC104"),
    "a semicolon": (model("True; r.sub == p.sub"), ALICE, "D-18 PC204"),
    "a literal that is rewritten": (model("r.sub == p.sub || r.obj == 'a&&b'"), ALICE, "D-19 "),
    "a matcher that is a value": (model("p.sub"), ALICE, "D-20 PC205"),
    "a matcher that is a value of the request": (model("r.sub"), ALICE, "D-20 "),
    "a number against a row": (model("r.sub == p.sub && p.obj != 5"), ALICE, "D-21 PC206"),
    "`in` on a string": (model("r.sub in ('alice')"), ALICE, "D-22 PC207"),
    "`eval` of a constant": (model("eval(p.sub)"), "p, True, data1, read", "D-23 PC210"),
    "`eval` that breaks out": (model("eval(p.sub)"), "p, r.sub == 'a') or (True, data1, read", "D-23 PC211"),
    "an attribute": (model("r.sub.Age > 18 && r.obj == p.obj"), ALICE, "D-24 "),
    "a star within": (keyed("keyMatch"), path("/models/*/metadata"), "D-26 PC301"),
    "a path that climbs": (keyed("keyMatch"), path("/models/../secret"), "D-27 PC302"),
    "an alternative in a key": (keyed("keyMatch2"), path("/models/(a|b)"), "D-28 PC303"),
    "a bare star": (keyed("keyMatch3"), path("*"), "D-28 PC307"),
    "a dot": (keyed("keyMatch2"), path("/v1.0/x"), "D-28 "),
    "a colon within": (keyed("keyMatch2"), path("/v1/models/m:predict"), "D-29 PC304"),
    "two parameters": (keyed("keyMatch4"), path("/x/{a}-{b}"), "D-30 PC305"),
    "a star that crosses": (keyed("keyMatch2"), path("/x/*"), "D-31 PC306"),
    "a query": (keyed("keyMatch5"), path("/x?y=1"), "D-32 "),
    "no end": (keyed("regexMatch"), path("^read"), "D-33 PC310"),
    "one alternative without end": (keyed("regexMatch"), path("^a$|b"), "D-33 PC310"),
    "exponential": (keyed("regexMatch"), path("^(a+)+$"), "D-34 "),
    "look-ahead": (keyed("regexMatch"), path("^(?!x).*$"), "D-34 PC311"),
    "a class": (keyed("regexMatch"), path(r"^\w+$"), "D-34 "),
    "a leading star": (keyed("globMatch"), path("*/data"), "D-35 PC312"),
    "a deny that skips dot-names": (keyed("globMatch"), path("/data/**", "deny"), "D-35 PC313"),
    "an address": (keyed("ipMatch"), path("10.0.0.0/8"), "D-36 "),
    "local time": (
        model("r.sub == p.sub && timeMatch(p.obj, p.act)"), "p, alice, 2026-01-01 00:00:00, _", "D-38 ",
    ),
    "no time": (model(ROLE, roles="g = _, _, (_, _)"), f"{ALICE}\ng, bob, admin, _, tomorrow", "D-38 PC212"),
    "ten links": (model(ROLE, roles="g = _, _"), f"{ALICE}\n{CHAIN}", "D-39 "),
    "a circle": (model(ROLE, roles="g = _, _"), f"{ALICE}\ng, a, b\ng, b, a", "D-40 PC402"),
    "a conditional section beside a plain one": (
        model(ROLE, roles="g = _, _, (_, _)\ng2 = _, _"), f"{ALICE}\ng2, a, b", "D-41 ",
    ),
    "a link with times": (
        model(ROLE, roles="g = _, _, (_, _)"), f"{ALICE}\ng, bob, admin, _, 2026-01-01T00:00:00Z", "D-42 ",
    ),
    "local times of a link": (
        model(ROLE, roles="g = _, _, (_, _)"), f"{ALICE}\ng, bob, admin, _, 2026-01-01 00:00:00", "D-38 ",
    ),
    "a role that a user may be called": (model(ROLE, roles="g = _, _"), f"{ALICE}\ng, alice, admin", "D-44 "),
}  # fmt: skip


def told(traps: tuple[Trap, ...]) -> set[str]:
    return {f"{trap.divergence} {trap.code}" for trap in traps}


@pytest.mark.parametrize("case", sorted(TRAPS))
def test_the_trap_is_found(case: str) -> None:
    model_text, policy_text, expected = TRAPS[case]
    assert expected in told(find_traps(model_text, policy_text))


def test_a_sound_policy_has_no_trap() -> None:
    text = model(ROLE, roles="g = _, _", policy="sub, obj, act, eft", effect=BOTH)
    assert (
        find_traps(text, "p, role:admin, data1, read, allow\np, role:guest, data1, read, deny\ng, alice, role:admin")
        == ()
    )
    assert find_traps(keyed("keyMatch2"), path("/models/:name")) == ()
    assert find_traps(keyed("regexMatch"), path("^(read|list)$")) == ()


def test_a_trap_is_told_at_its_place() -> None:
    (trap,) = find_traps(keyed("keyMatch"), f"# ours\n{path('/models/*/metadata')}\n", policy_file="rules.csv")
    assert str(trap) == (
        "rules.csv:2:11: D-26 PC301 star_not_last: pycasbin ignores `/metadata`, which stands after the first `*` (refused)"
    )


def test_a_narrower_deny_is_refused_and_a_narrower_allow_is_not() -> None:
    (allow,) = find_traps(keyed("keyMatch2"), path("/v1.0"))
    (deny,) = find_traps(keyed("keyMatch2"), path("/v1.0", "deny"))
    assert (allow.answer, deny.answer) == (Answer.NARROWER, Answer.REFUSED)


@pytest.mark.parametrize(
    "text", ["", "[", "]", "[]\n=\n", "m", "[matchers]\nm = \\", "\x00", "(" * 500, "p,\n,\np, (,)]"]
)
def test_anything_may_be_linted(text: str) -> None:
    find_traps(text, text)
    find_traps(model(), text)
    find_traps(text, ALICE)
    report = lint_files(text.encode(), b"\xff", model_file="m", policy_file="p")
    assert report.refused


def test_what_only_the_compiler_finds_is_told_too() -> None:
    report = lint_files(
        model("r.sub == p.sub && r.obj + 1 == p.obj").encode(), ALICE.encode(), model_file="model.conf",
        policy_file="policy.csv",
    )  # fmt: skip
    assert report.refused
    assert [trap.code for trap in report.traps] == ["PC202"]


def test_rows_for_our_own_model_are_read_as_ours() -> None:
    text = """[request_definition]
r = sub, act, obj, env
[policy_definition]
p = role, act, obj, env, when, then, eft
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.role, r.env) && actionMatch(r.act, p.act) && resourceMatch(r.obj, p.obj) && envMatch(r.env, p.env) && when(p.when)
"""
    rows = """p, role:a, dataset.read, dataset/**, prod, "request.purpose in ['x', 'y'] && size(resource.owners) >= 2", , allow
g, user:u, role:a, prod
"""
    report = lint_files(text.encode(), rows.encode(), model_file="model.conf", policy_file="policy.csv")
    assert (report.refused, report.traps) == (False, ())


IMPORT_ONLY = {"a note", "a quoted comma", "a stray bracket"}
"""What a compiler could read in its way, and an import refuses, because pycasbin read it in another."""


@pytest.mark.parametrize("case", sorted(TRAPS.keys() - IMPORT_ONLY))
def test_what_lint_calls_refused_the_compiler_refuses_and_nothing_else(case: str) -> None:
    model_text, policy_text, expected = TRAPS[case]
    narrower = expected.strip() in NARROWER
    traps = find_traps(model_text, policy_text)
    refused = any(trap.answer is Answer.REFUSED for trap in traps)
    refuses = bool(errors(_compiled(model_text, policy_text, "model.conf", "policy.csv")))
    assert refused is refuses or narrower


NOISE = "=[](),.\"'\\\\#;:*{}|&!_\n pgrme2\x00\u200b"


def bent(text: str, rng: Random) -> str:
    """Return a text with a few characters lost, added, or its end cut off."""
    for _ in range(rng.randint(0, 4)):
        at = rng.randint(0, len(text))
        text = rng.choice((text[:at] + text[at + 1 :], text[:at] + rng.choice(NOISE) + text[at:], text[:at]))
    return text


def test_bent_and_cut_files_are_linted_without_a_traceback() -> None:
    rng = Random(5)  # noqa: S311 - the same files each time
    for model_text, policy_text, _ in TRAPS.values():
        for _ in range(10):
            lint_files(
                bent(model_text, rng).encode(),
                bent(policy_text, rng).encode(),
                model_file="model.conf",
                policy_file="policy.csv",
            )
