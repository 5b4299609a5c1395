import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.classes import NameClass, check_enumerable, fresh, objects, subjects
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest
from pdp.engine.functions import resource_match
from pdp.engine.possible import possible
from pdp.errors import BadRequestError
from pdp.model.listed import Access
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


@pytest.mark.parametrize(
    "matcher",
    [
        "g(r.sub, p.role, r.env) && keyMatch(r.obj, p.obj)",
        "r.sub == p.role && resourceMatch(r.obj, p.obj) && r.act >= p.act",
        "r.sub == p.role && resourceMatch(r.obj, p.obj) && r.sub != r.obj",
        "g(r.sub, p.role, r.env) && resourceMatch(r.obj, p.obj) && g2(r.sub, r.obj)",
        "r.sub.name == p.role && resourceMatch(r.obj, p.obj)",
    ],
)
def test_of_a_matcher_without_classes_of_names_there_is_no_list(bench: Workbench, matcher: str) -> None:
    text = bench.model_text[: bench.model_text.index("m  =")] + f"m = {matcher} && when(p.when)\n"
    text += "m2 = " + bench.model_text.split("m2 =")[1]
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    rows, problems = parse_rows("p, role:a, dataset.read, dataset/a, dev, , , allow", file="rows.csv", model=model)
    assert not problems
    snapshot = compile_policy(model, bench.vocabulary, rows)
    assert isinstance(snapshot, Snapshot), [str(item) for item in snapshot]
    with pytest.raises(
        BadRequestError, match=r"names of `r\.\w+` cannot be enumerated under `m`: .*(compared|matches)"
    ):
        check_enumerable(snapshot, "")
    check_enumerable(snapshot, "", "env")
    check_enumerable(snapshot, "2")
    check_enumerable(snapshot, "9")


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
