"""Lists over a world against `decide`: every subject, source and purpose of a small world, one by one."""

from itertools import product

import pytest

from pdp.ask import Terms, actions, what_can, who_can
from pdp.decide import decide
from pdp.errors import PortcullisError, Reason
from pdp.model.attributes import Attributes
from pdp.model.listed import Access, Listed
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import World
from tests.support.worlds import MODEL, START_MS, Scribe

POLICY = """\
g, user:dana@x, role:scientist, dev
g, user:ana@x, role:releaser, prod
g, user:tim@x, role:app, prod, 2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z
g, group:team, role:app, prod
g, group:team, role:scientist, dev
g, agent:bot, role:app, prod
g, workload:spiffe://t/ns/apps/**, role:app, prod
g, workload:spiffe://t/ns/apps/sa/bad, role:barred, prod
g3, workload:spiffe://t/ns/apps/**, segment:apps
g3, workload:spiffe://t/ns/nb/**, segment:notebooks
g2, dataset/hr/people, collection:pii
p, role:scientist, dataset.read|list, dataset/**, dev, , , allow
p, role:scientist, dataset.read, collection:pii, *, "request.purpose != 'payroll'", , deny
p, role:app, endpoint.invoke, endpoint/**, prod, , recheck_after=10s, allow
p, role:barred, *, endpoint/**, *, , , deny
p, role:releaser, model.promote, model/**, prod, "size(resource.approvals) >= 2", , allow
p, role:releaser, model.promote, model/**, prod, subject.id in resource.approvals, , deny
p, user:zoe@x, dataset.list, dataset/*, dev, request.ticket == 'T', , allow
p2, segment:apps, endpoint.invoke, segment:serving, , allow
p2, segment:notebooks, dataset.*, segment:data, , allow
p2, segment:apps, dataset.*, segment:data, request.purpose == 'payroll', allow
p2, segment:notebooks, endpoint.*, segment:serving, , deny
p2, segment:none, model.*, segment:none, , allow
"""
ASSETS = {
    "endpoint/digits": {"environment": "prod", "segment": "segment:serving"},
    "model/digits@1": {"environment": "prod", "approvals": ["user:ana@x", "user:eve@x"]},
    "model/digits@2": {"environment": "prod", "approvals": ["user:bob@x", "user:eve@x"]},
    "model/digits@3": {"environment": "prod"},
    "dataset/vision": {"environment": "dev", "segment": "segment:data"},
    "dataset/hr/people": {"environment": "dev", "segment": "segment:data"},
    "dataset/locked": {"environment": "dev", "segment": "segment:data"},
}
SUBJECTS = {
    **{name: (name, ()) for name in ("user:dana@x", "user:ana@x", "user:tim@x", "agent:bot", "user:zoe@x")},
    "group:team": ("user:member@x", ("group:team",)),
    "workload:spiffe://t/ns/apps/**": ("workload:spiffe://t/ns/apps/sa/web", ()),
    "workload:spiffe://t/ns/apps/sa/bad": ("workload:spiffe://t/ns/apps/sa/bad", ()),
    "user:shut@x": ("user:shut@x", ()),
    "*": ("user:somebody@x", ()),
}
SOURCES = (
    None,
    "workload:spiffe://t/ns/apps/sa/web",
    "workload:spiffe://t/ns/apps/sa/shut",
    "workload:spiffe://t/ns/nb/sa/jupyter",
    "workload:spiffe://elsewhere/x",
)
ATTRIBUTES: tuple[Attributes, ...] = tuple(
    {name: value for name, value in (("request.purpose", purpose), ("request.ticket", ticket)) if value is not None}
    for purpose, ticket in product((None, "payroll", "fun"), (None, "T", "U"))
)


@pytest.fixture(scope="module")
def world() -> World:
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    scribe.lock("l1", {"kind": "principal", "principal": "user:shut@x"})
    scribe.lock("l2", {"kind": "principal", "principal": "workload:spiffe://t/ns/apps/sa/shut"})
    return scribe.lock("l3", {"kind": "resource", "resource": "dataset/locked"})


def party(label: str) -> Party:
    name, groups = {**SUBJECTS, **MATCHED_SUBJECTS}[label]
    return Party(principal=Principal.parse(name), groups=frozenset(groups))


def answers(world: World, label: str, action: str, resource: str, terms: Terms) -> set[bool]:
    sources = [Principal.parse(name) if name else None for name in SOURCES] if terms.anywhere else [terms.workload]
    return {
        decide(
            world,
            Question(
                subject=party(label),
                action=Action.parse(action),
                resource=Resource.parse(resource),
                workload=source,
                attributes={**attributes, **terms.attributes},
            ),
            START_MS,
        ).allowed
        for source in sources
        for attributes in ATTRIBUTES
    }


TERMS = (
    Terms(),
    Terms(anywhere=False),
    Terms(anywhere=False, workload=Principal.parse("workload:spiffe://t/ns/apps/sa/web")),
    Terms(attributes={"request.purpose": "payroll"}),
)
CELLS = [
    (verb, name)
    for name in ASSETS
    for verb in {
        "dataset": ("dataset.read", "dataset.list", "dataset.write"),
        "model": ("model.promote", "model.download"),
        "endpoint": ("endpoint.invoke",),
    }[name.partition("/")[0]]
]


def held(listed: Listed | None, found: set[bool]) -> None:
    """The law: an allow is allowed always, what is left out never, and a condition is there because it matters."""
    if listed is None:
        assert found == {False}
    elif listed.access is Access.ALLOW:
        assert found == {True}
    else:
        assert found == {False, True}
        assert listed.depends_on or listed.sources


@pytest.mark.holds("adv_list_partial", "P3")
@pytest.mark.parametrize("terms", TERMS)
def test_who_can_agrees_with_decide_on_every_subject(world: World, terms: Terms) -> None:
    for action, resource in CELLS:
        found = who_can(world, Action.parse(action), Resource.parse(resource), START_MS, terms)
        listed = {entry.subject: entry for entry in found if entry}
        assert list(listed) == sorted(listed)
        assert set(listed) <= set(SUBJECTS)
        for label in SUBJECTS:
            held(listed.get(label), answers(world, label, action, resource, terms))


MATCHED_MODEL = (
    MODEL[: MODEL.index("m  =")]
    + 'm = (g(r.sub, p.role, r.env) || p.role == "role:ml" && regexMatch(r.sub, "^user:ml-[a-z]+@x$"))'
    " && regexMatch(r.act, p.act) && resourceMatch(r.obj, p.obj) && envMatch(r.env, p.env) && when(p.when)\n"
    'm2 = (g3(r2.src, p2.src) || p2.src == "segment:apps" && keyMatch(r2.src, "workload:*"))'
    " && actionMatch(r2.act, p2.act) && g3(r2.dst, p2.dst) && when(p2.when)\n"
)
MATCHED_POLICY = """\
g, user:ml-ana@x, role:barred, dev
g, group:team, role:ml, dev
p, role:ml, ^dataset\\.(read|list)$, dataset/**, dev, , , allow
p, role:barred, ^dataset\\.l.*, dataset/**, dev, , , deny
p, role:ml, ^dataset\\.write$, dataset/**, dev, request.ticket == 'T', , allow
p2, segment:apps, dataset.*, segment:data, , allow
"""
MATCHED_SUBJECTS = {
    "*": ("user:somebody@x", ()),
    "group:team": ("user:member@x", ("group:team",)),
    "regexMatch(^user:ml-[a-z]+@x$)": ("user:ml-zoe@x", ()),
    "user:ml-ana@x": ("user:ml-ana@x", ()),
    "user:shut@x": ("user:shut@x", ()),
}


def test_who_can_agrees_with_decide_where_principals_and_actions_are_matched_by_patterns_of_casbin() -> None:
    scribe = Scribe()
    scribe.policy(MATCHED_POLICY, model_text=MATCHED_MODEL)
    scribe.lock("l1", {"kind": "principal", "principal": "user:shut@x"})
    world = scribe.assets(**{"dataset/vision": {"environment": "dev", "segment": "segment:data"}})
    terms = Terms()
    for action in ("dataset.read", "dataset.list", "dataset.write", "dataset.delete"):
        found = who_can(world, Action.parse(action), Resource.parse("dataset/vision"), START_MS, terms)
        listed = {entry.subject: entry for entry in found if entry}
        assert set(listed) <= set(MATCHED_SUBJECTS)
        for label in MATCHED_SUBJECTS:
            held(listed.get(label), answers(world, label, action, "dataset/vision", terms))
        if action == "dataset.read":
            assert list(listed) == ["group:team", "regexMatch(^user:ml-[a-z]+@x$)", "user:ml-ana@x"]
            assert listed["group:team"].sources == ("keyMatch(workload:*)",)


@pytest.mark.holds("adv_list_partial", "P3")
@pytest.mark.parametrize("terms", TERMS)
def test_what_can_and_actions_agree_with_decide_on_every_asset(world: World, terms: Terms) -> None:
    for label in ("user:dana@x", "group:team", "workload:spiffe://t/ns/apps/sa/bad", "*"):
        found = [entry for entry in what_can(world, party(label), START_MS, terms) if entry]
        listed = {(entry.action, entry.resource): entry for entry in found}
        assert list(listed) == sorted(listed, key=lambda pair: (pair[1], pair[0]))
        for action, resource in CELLS:
            held(listed.get((action, resource)), answers(world, label, action, resource, terms))
        for resource in ASSETS:
            single = [
                entry for entry in actions(world, party(label), Resource.parse(resource), START_MS, terms) if entry
            ]
            assert single == [entry for entry in found if entry.resource == resource]


def test_a_conditional_entry_says_on_what_it_depends(world: World) -> None:
    entries = who_can(world, Action.parse("dataset.read"), Resource.parse("dataset/hr/people"), START_MS)
    (dana,) = (entry for entry in entries if entry and entry.subject == "user:dana@x")
    assert dana.access is Access.CONDITIONAL
    assert dana.depends_on == ("request.purpose != 'payroll'", "request.purpose == 'payroll'")
    assert dana.sources == ("workload:spiffe://t/ns/apps/**", "workload:spiffe://t/ns/nb/**")
    assert dana.role_path == ("user:dana@x", "role:scientist")


def test_a_temporal_role_counts_while_it_holds(world: World) -> None:
    asked = (Action.parse("endpoint.invoke"), Resource.parse("endpoint/digits"))
    during = [entry.subject for entry in who_can(world, *asked, 1_768_000_000_000) if entry]
    assert "user:tim@x" in during
    assert "user:tim@x" not in [entry.subject for entry in who_can(world, *asked, START_MS) if entry]


@pytest.mark.holds("adv_list_partial")
def test_a_list_about_nothing_is_an_error_and_never_empty(world: World) -> None:
    for action, resource, reason in (
        ("dataset.read", "dataset/shadow", Reason.NOT_FOUND),
        ("dataset.fly", "dataset/vision", Reason.BAD_REQUEST),
        ("model.promote", "dataset/vision", Reason.BAD_REQUEST),
    ):
        with pytest.raises(PortcullisError) as raised:
            list(who_can(world, Action.parse(action), Resource.parse(resource), START_MS))
        assert raised.value.reason is reason
    shadow = Resource.parse("dataset/shadow")
    assert list(actions(world, party("user:dana@x"), shadow, START_MS)) == []
