"""What a change touches, told from its rows: in doubt yes."""

import pytest

from pdp.change.facts import Facts, nothing_touched
from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.pack import Pack, load_pack
from pdp.model.names import Principal
from pdp.model.request import Party
from tests.support.changes import ADA, MIA, PEOPLE, files

NOW_MS = 1_790_000_000_000
QUIET = {"production", "segmentation", "administration", "wildcard", "language", "self_grant"}


def compiled(rows: str, **more: str) -> Snapshot:
    pack = load_pack(files(people_csv=PEOPLE + rows, **more))
    assert isinstance(pack, Pack), [str(finding) for finding in pack]
    return pack.snapshot


def told(before: str, after: str, *, by: str = ADA, groups: tuple[str, ...] = ()) -> set[str]:
    party = Party(principal=Principal.parse(by), groups=frozenset(groups))
    facts = Facts(compiled(before), compiled(after), words=False, now_ms=NOW_MS)
    found = facts.attributes([party])
    return {name.removeprefix("change.") for name, value in found.items() if value is True}


@pytest.mark.parametrize(
    ("row", "touches"),
    [
        (f"g, {MIA}, role:data-scientist, dev", set()),
        (f"g, {MIA}, role:app, prod", {"production"}),
        (f"g, {MIA}, role:viewer, *", {"production"}),
        (f"g, {MIA}, role:policy-approver, prod", {"production", "administration"}),
        (f"g, {MIA}, role:policy-approver, dev", {"administration"}),
        ("g, role:app, role:operator, prod", {"production", "administration"}),
        (f"g, {MIA}, role:gateway, dev", {"administration"}),
        ("g2, dataset/a, collection:pii", {"production"}),
        ("g3, workload:spiffe://x.org/web/**, segment:apps", {"segmentation", "production"}),
        ("p2, segment:apps, endpoint.invoke, segment:sandbox, , allow", {"segmentation", "production"}),
        ("p, role:app, endpoint.invoke, endpoint/x, dev, , , allow", set()),
        ("p, role:app, endpoint.invoke, endpoint/x, prod, , , allow", {"production"}),
        ("p, role:app, endpoint.invoke, endpoint/**, dev, , , allow", {"wildcard"}),
        ("p, role:app, endpoint.*, endpoint/x, dev, , , allow", {"wildcard"}),
        ("p, role:app, endpoint.invoke|*, endpoint/x, dev, , , allow", {"wildcard"}),
        ("p, role:app, endpoint.invoke, endpoint/*, dev, , , allow", {"wildcard"}),
        ("g2, dataset/**, collection:pii", {"production", "wildcard"}),
        ("p, role:app, endpoint.invoke, endpoint/**, dev, , , deny", set()),
        ("p, role:app, lock.add, lock/all, dev, , , allow", {"administration"}),
        ("p, role:app, decision.ask, decision/main, dev, , , allow", set()),
        ("p, role:app, decision.assert, decision/main, dev, , , allow", {"administration"}),
    ],
)
def test_a_row_touches_what_it_says_added_or_removed(row: str, touches: set[str]) -> None:
    assert told("", row + "\n") == touches
    assert told(row + "\n", "") == touches - {"wildcard"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"g, {ADA}, role:data-scientist, dev"),
        ("", "g, role:policy-admin, role:data-scientist, dev"),
        ("", "p, role:policy-admin, dataset.read, dataset/x, dev, , , allow"),
        ("p, role:policy-admin, policy.read, policy/main, prod, , , deny", ""),
        (f"g, {ADA}, role:data-scientist, dev, _, 2026-10-01T00:00:00Z", f"g, {ADA}, role:data-scientist, dev"),
        (
            f"g, {ADA}, role:data-scientist, prod\ng, {ADA}, role:data-scientist, dev\ng2, dataset/x, collection:pii",
            f"g, {ADA}, role:data-scientist, prod\ng, {ADA}, role:data-scientist, dev",
        ),
        ("", "g, group:admins, role:data-scientist, dev"),
    ],
)
def test_who_gains_is_told(before: str, after: str) -> None:
    assert "self_grant" in told(f"{before}\n", f"{after}\n", groups=("group:admins",))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"g, {MIA}, role:app, prod"),
        ("", "p, role:app, endpoint.invoke, endpoint/x, dev, , , allow"),
        (f"g, {ADA}, role:app, dev", ""),
        (
            "p, role:policy-admin, dataset.read, dataset/x/**, dev, , , allow",
            "p, role:policy-admin, dataset.read, dataset/x/y, dev, , , allow",
        ),
        ("", "p, role:policy-admin, dataset.read, dataset/x, dev, , , deny"),
        ("# moved down\n", "# moved down\n# twice\n"),
        ("", f"g, {ADA}, role:app, dev"),  # a role that is worth nothing there
    ],
)
def test_who_does_not_gain_is_told_too(before: str, after: str) -> None:
    assert "self_grant" not in told(f"{before}\n", f"{after}\n")


def test_a_change_of_words_is_told() -> None:
    one = compiled("")
    facts = Facts(one, one, words=True, now_ms=NOW_MS)
    assert facts.attributes([])["change.language"] is True


def test_a_vocabulary_without_these_words_is_told_nothing() -> None:
    words = files()["vocabulary.yaml"].decode()
    plain = "\n".join(line for line in words.splitlines() if "change." not in line)
    rows = "".join(line + "\n" for line in files()["grants.csv"].decode().splitlines() if "change." not in line)
    snapshot = compiled("", **{"vocabulary.yaml": plain, "grants_csv": rows})
    assert Facts(snapshot, snapshot, words=False, now_ms=NOW_MS).attributes([]) == {}
    assert nothing_touched(snapshot.vocabulary) == {}


def test_nothing_touched_names_every_fact() -> None:
    snapshot = compiled("")
    assert {name.removeprefix("change.") for name in nothing_touched(snapshot.vocabulary)} == {
        "rows",
        "duration_s",
        *QUIET,
    }
    assert (
        nothing_touched(snapshot.vocabulary).keys()
        == Facts(snapshot, snapshot, words=False, now_ms=NOW_MS).attributes([]).keys()
    )


# --- what somebody's groups do together ------------------------------------------------------------------------------

ONE_DENIES = "p, group:contractors, dataset.read, dataset/x, dev, , , deny\n"
OTHER_ALLOWS = "p, group:fraud, dataset.read, dataset/x, dev, , , allow\n"


def test_a_deny_of_one_group_that_goes_favours_who_is_allowed_by_another() -> None:
    groups = ("group:contractors", "group:fraud")
    assert "self_grant" in told(ONE_DENIES + OTHER_ALLOWS, OTHER_ALLOWS, by=MIA, groups=groups)
    assert "self_grant" not in told(ONE_DENIES + OTHER_ALLOWS, OTHER_ALLOWS, by=MIA, groups=groups[:1])


# --- what the rows of other languages touch --------------------------------------------------------------------------

OTHER_MODEL = """
[request_definition]
r = sub, act, obj, env
[policy_definition]
p = sub, act, obj, env, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && actionMatch(r.act, p.act) && resourceMatch(r.obj, p.obj) && envMatch(r.env, p.env)
"""
FIRST_DECIDES = OTHER_MODEL.replace(
    "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "priority(p.eft) || deny"
)
PATTERNS = (
    OTHER_MODEL.replace("actionMatch", "keyMatch").replace("resourceMatch", "keyMatch").replace("envMatch", "keyMatch")
)
OTHER_COLUMN = OTHER_MODEL.replace("obj", "thing")
ONE_GRAPH = """
[request_definition]
r = sub, act, obj, env
r2 = src, act, dst
[policy_definition]
p = sub, act, obj, env, eft
p2 = src, act, dst, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
e2 = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && actionMatch(r.act, p.act) && resourceMatch(r.obj, p.obj) && envMatch(r.env, p.env)
m2 = g(r2.src, p2.src) && actionMatch(r2.act, p2.act) && g(r2.dst, p2.dst)
"""
SMALL = "p, role:app, dataset.read, dataset/y, dev, allow\n"
ACTIVATES = "p, role:app, policy.activate, policy/main, dev, {}\n"


def in_language(model: str, rows: str) -> Snapshot:
    parsed, findings = parse_model(model, file="model.conf")
    assert parsed is not None, findings
    read, findings = parse_rows(rows, file="rows.csv", model=parsed)
    assert not findings
    found = compile_texts(model, files()["vocabulary.yaml"].decode(), read)
    assert isinstance(found, Snapshot), [str(finding) for finding in found]
    return found


def told_in(model: str, before: str, after: str) -> set[str]:
    facts = Facts(in_language(model, before), in_language(model, after), words=False, now_ms=NOW_MS)
    found = facts.attributes([Party(principal=Principal.parse(MIA))])
    return {name.removeprefix("change.") for name, value in found.items() if value is True}


def test_where_the_first_row_decides_its_place_is_a_change() -> None:
    holds = f"g, {MIA}, role:app\n"
    denies, allows = ACTIVATES.format("deny"), ACTIVATES.format("allow")
    assert told_in(FIRST_DECIDES, denies + allows + holds, allows + denies + holds) >= {"administration", "self_grant"}
    assert told_in(FIRST_DECIDES, denies + allows + holds, "# lower\n" + denies + allows + holds) == set()
    assert told_in(OTHER_MODEL, denies + allows + holds, allows + denies + holds) == set()


@pytest.mark.parametrize(
    ("model", "row", "touches"),
    [
        (OTHER_MODEL, "p, role:app, dataset.read, dataset/z, dev, allow", set()),
        (OTHER_COLUMN, "p, role:app, dataset.read, dataset/**, dev, allow", {"wildcard"}),
        (PATTERNS, "p, role:app, dataset.read, dataset/z, dev, allow", set()),
        (PATTERNS, "p, role:app, pol*, policy/main, dev, allow", {"administration", "wildcard"}),
        (PATTERNS, "p, role:app, dataset.read, dataset/z, p*, allow", {"production", "wildcard"}),
        (PATTERNS, "p, role:app, dataset.read, data*, dev, allow", {"wildcard"}),
    ],
)
def test_a_row_that_cannot_be_read_is_the_worst_that_it_may_be(model: str, row: str, touches: set[str]) -> None:
    assert told_in(model, SMALL, SMALL + row + "\n") == touches


def test_a_graph_of_both_people_and_segments_hides_no_gain() -> None:
    rows = ACTIVATES.format("allow") + "p2, segment:a, dataset.read, segment:b, allow\n"
    assert "self_grant" in told_in(ONE_GRAPH, rows, rows + f"g, {MIA}, role:app\n")


@pytest.mark.parametrize(
    ("matcher", "row"),
    [
        ("keyMatch(r.sub, p.sub)", "p, user:m*, dataset.read, dataset/z, dev, allow"),
        ('(g(r.sub, p.sub) || regexMatch(r.sub, "^user:.*"))', "p, role:other, dataset.read, dataset/z, dev, allow"),
        ('(g(r.sub, p.sub) || r.sub != "user:eve")', "p, role:other, dataset.read, dataset/z, dev, allow"),
    ],
)
def test_who_is_matched_by_a_pattern_gains_by_it(matcher: str, row: str) -> None:
    for model in (OTHER_MODEL, PATTERNS):
        text = model.replace("g(r.sub, p.sub)", matcher)
        before = SMALL.replace("role:app", "user:x") if "keyMatch(r.sub" in matcher else SMALL
        assert "self_grant" in told_in(text, before, before + row + "\n")
        other = row.replace("user:m*", "user:n*").replace(", allow", ", deny")
        assert "self_grant" not in told_in(text, before, before + other + "\n")
