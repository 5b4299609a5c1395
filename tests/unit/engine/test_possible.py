import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.classes import NameClass, check_enumerable, fresh, objects, subjects, uses_of
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.diff import Change, diff
from pdp.engine.evaluate import EngineRequest
from pdp.engine.functions import resource_match
from pdp.engine.possible import possible
from pdp.errors import BadRequestError
from pdp.model.listed import Access
from pdp.model.names import Principal
from tests.unit.engine.conftest import Workbench

GRANT = "p, role:a, dataset.read, dataset/**, dev,"
OPEN = "request.purpose == 'x'"
VALUES = ("role:a", "dataset.read", "dataset/q", "dev")


def asked(attributes: dict[str, bool | str]) -> EngineRequest:
    return EngineRequest(context="", values=VALUES, memberships={}, attributes=attributes)


@pytest.mark.parametrize(
    ("rows", "access", "depends_on"),
    [
        ((f"{GRANT} , , allow",), Access.ALLOW, ()),
        ((f"{GRANT} {OPEN}, , allow",), Access.CONDITIONAL, (OPEN,)),
        ((f"{GRANT} , , allow", f"{GRANT} {OPEN}, , deny"), Access.CONDITIONAL, (OPEN,)),
        ((f"{GRANT} , , allow", f"{GRANT} {OPEN}, max_rows=1, allow"), Access.ALLOW, ()),
        # A duty that may contradict the one that holds: whether it is an allow depends on the question.
        ((f"{GRANT} , purpose=a, allow", f"{GRANT} {OPEN}, purpose=b, allow"), Access.CONDITIONAL, (OPEN,)),
        ((f"{GRANT} , purpose=a, allow", f"{GRANT} , purpose=b, allow"), Access.DENY, ()),
        ((f"{GRANT} {OPEN}, , allow", f"{GRANT} , , deny"), Access.DENY, ()),
        # Without any grant, a deny that might hold changes nothing.
        ((f"{GRANT} {OPEN}, , deny",), Access.DENY, ()),
        # The inventory does not say: nobody will.
        ((f"{GRANT} resource.signature_verified, , allow",), Access.DENY, ()),
        ((f"{GRANT} , , allow", f"{GRANT} resource.signature_verified, , deny"), Access.DENY, ()),
        # Decided without the attribute that is missing.
        ((f"{GRANT} \"{OPEN} || resource.owner == 'me'\", , allow",), Access.ALLOW, ()),
    ],
)
def test_what_is_known_and_what_is_left_open(
    bench: Workbench, rows: tuple[str, ...], access: Access, depends_on: tuple[str, ...]
) -> None:
    request = asked({"resource.owner": "me"})
    found = possible(bench.snapshot("\n".join(rows)), request, lambda name: name.startswith("request."), 0)
    assert (found.access, found.depends_on) == (access, depends_on)


def test_resources_fall_into_the_classes_that_patterns_tell_apart() -> None:
    names = ("dataset/a/*", "dataset/*/b", "dataset/**", "dataset/a/b@1", "collection:pii", "workload:spiffe://d/**")
    found = {one.label: one.member for one in objects(names, ("dataset", "model"))}
    assert found == {
        "dataset/**": "dataset/a",
        "dataset/a/*": "dataset/a/any",
        "dataset/*/b": "dataset/any/b",
        "dataset/*/b & dataset/a/*": "dataset/a/b",
        "dataset/a/b@1": "dataset/a/b@1",
        "model/**": "model/any",
    }


def test_many_overlapping_patterns_end() -> None:
    names = [f"dataset/{'*/' * before}x/**" for before in range(12)]
    found = objects(names, ("dataset",))
    assert len(found) > len(names)


def test_subjects_are_principals_groups_patterns_and_everyone_else() -> None:
    names = ("user:a", "role:r", "group:g", "workload:spiffe://d/a/**", "segment:s", "user:any")
    assert subjects(names) == (
        NameClass(label="*", member="user:any-x", named=False),
        NameClass(label="group:g", member="user:any-x", named=False, memberships=("group:g",)),
        NameClass(label="user:a", member="user:a", named=True),
        NameClass(label="user:any", member="user:any", named=True),
        NameClass(label="workload:spiffe://d/a/**", member="workload:spiffe://d/a/any", named=False),
    )
    assert fresh("user:", ("user:any", "user:any-xy")) == "user:any-x-x"


def custom(bench: Workbench, matcher: str, *rows: str) -> Snapshot:
    text = bench.model_text[: bench.model_text.index("m  =")] + f"m = {matcher} && when(p.when)\n"
    text += "m2 = " + bench.model_text.split("m2 =")[1]
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    lines, problems = parse_rows("\n".join(rows), file="rows.csv", model=model)
    assert not problems
    snapshot = compile_policy(model, bench.vocabulary, lines)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    return snapshot


READ = "p, role:a, dataset.read, dataset/a, dev, , , allow"


@pytest.mark.parametrize(
    ("matcher", "why"),
    [
        ("r.sub.name == p.role && resourceMatch(r.obj, p.obj)", "`r.sub.name` is looked into, which no name shows"),
        ("r.sub == 7 && resourceMatch(r.obj, p.obj)", "compared with the value `7`, which is no text"),
        ("r.sub < r.obj && resourceMatch(r.obj, p.obj)", "ordered beside another field (`obj`)"),
        ("r.sub in r.obj.owners && resourceMatch(r.obj, p.obj)", "`r.sub` is looked into, which no name shows"),
    ],
)
def test_of_a_matcher_without_classes_of_names_there_is_no_list(bench: Workbench, matcher: str, why: str) -> None:
    snapshot = custom(bench, matcher, READ)
    with pytest.raises(BadRequestError, match=r"names of `r\.sub` under `m` cannot be enumerated: ") as raised:
        check_enumerable(snapshot, "", "sub")
    assert why in raised.value.message
    check_enumerable(snapshot, "", "env")
    check_enumerable(snapshot, "2")
    check_enumerable(snapshot, "9")


@pytest.mark.parametrize(
    ("matcher", "labels"),
    [
        (
            "keyMatch(r.sub, p.role) && resourceMatch(r.obj, p.obj)",
            ["*", "keyMatch(user:ml-*)", "user:ana"],
        ),
        (
            'regexMatch(r.sub, "^(user|agent):bot-.*") && r.sub != "user:bot-1" && resourceMatch(r.obj, p.obj)',
            ["*", "regexMatch(^(user|agent):bot-.*)", "user:bot-1"],
        ),
        (
            'regexMatch(r.sub, "^workload:spiffe://t/.*") && resourceMatch(r.obj, p.obj)',
            ["*", "regexMatch(^workload:spiffe://t/.*)"],
        ),
        ('keyMatch(r.sub, "*") && resourceMatch(r.obj, p.obj)', ["keyMatch(*)"]),
        ('ipMatch(r.sub, "10.0.0.0/8") && resourceMatch(r.obj, p.obj)', ["*"]),
    ],
)
def test_principals_fall_into_classes_under_patterns_of_casbin(
    bench: Workbench, matcher: str, labels: list[str]
) -> None:
    snapshot = custom(
        bench, matcher, "p, user:ml-*, *, dataset/a, dev, , , allow", "p, user:ana, *, dataset/a, dev, , , allow"
    )
    uses = uses_of((snapshot,), "", "sub")
    found = subjects(set().union(*(each.names for each in uses)), uses=uses, where="`r.sub`")
    assert [each.label for each in found] == labels
    assert all(Principal.parse(each.member) for each in found)


def test_a_condition_on_the_clock_is_compared_under_any_matcher(bench: Workbench) -> None:
    matcher = "(r.sub == p.role || r.sub == p.act) && resourceMatch(r.obj, p.obj)"
    later = READ.replace("dev, ,", "dev, now > timestamp('2090-01-01T00:00:00Z'),").replace("role:a", "role:b")
    before, after = custom(bench, matcher, READ), custom(bench, matcher, READ, later)
    assert not after.contexts[""].direct
    found = diff(before, after, 0)
    assert {(cell.values[0], cell.change, cell.always) for cell in found} == {("role:b", Change.REWRITTEN, False)}


def test_somebody_in_a_group_is_matched_by_as_few_patterns_as_possible(bench: Workbench) -> None:
    snapshot = custom(bench, 'keyMatch(r.sub, "user:*") && g(r.sub, p.role, r.env)', READ, "g, group:x, role:a, dev")
    uses = uses_of((snapshot,), "", "sub")
    found = {each.label: each for each in subjects(uses[0].names, uses=uses, where="`r.sub`")}
    assert list(found) == ["*", "group:x", "keyMatch(user:*)"]
    assert found["group:x"].memberships == ("group:x",)
    assert found["group:x"].member.startswith("user:")
    assert not found["*"].member.startswith("user:")


SEGMENTS = st.sampled_from(["a", "b", "*"])
PATTERNS = st.builds(
    lambda kind, segments, last, version: f"{kind}/{'/'.join([*segments, *last])}{version}",
    st.sampled_from(["dataset", "model"]),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from([[], ["**"]]),
    st.sampled_from(["", "@1", "@2"]),
)


@given(
    st.lists(PATTERNS, max_size=7), st.lists(st.sampled_from("ab"), min_size=1, max_size=4), st.sampled_from(["", "@1"])
)
def test_every_name_is_covered_by_the_same_patterns_as_the_member_of_some_class(
    names: list[str], path: list[str], version: str
) -> None:
    """Found through a trie, and compared with every pattern here."""
    classes = objects(names, ("dataset", "model"))
    for kind in ("dataset", "model"):
        name = f"{kind}/{'/'.join(path)}{version}"
        covering = {pattern for pattern in names if resource_match(name, pattern)}
        members = [{pattern for pattern in names if resource_match(one.member, pattern)} for one in classes]
        assert covering in members
