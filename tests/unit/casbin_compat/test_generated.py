"""Generated policies of the safe subset: our enforcer and pycasbin's, made and changed alike, answer every question alike."""

from itertools import product
from typing import Any

import casbin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdp.casbin_compat import Enforcer
from tests.unit.casbin_compat.families import BOTH, model

USERS, DATA, ACTS, DOMAINS = ("u1", "u2", "u3"), ("d1", "d2"), ("read", "write"), ("dom1", "dom2")
ROLES = ("r1", "r2", "r3", "r4")
MODEL = model(
    "g(r.sub, p.sub, r.dom) && r.dom == p.dom && (r.obj == p.obj || keyMatch(r.obj, p.obj)) && r.act in ('read', 'write')"
    " && regexMatch(r.act, p.act)",
    request="sub, dom, obj, act",
    policy="sub, dom, obj, act, eft",
    effect=BOTH,
    roles="g = _, _, _",
)
RULES = st.tuples(
    st.sampled_from((*USERS, *ROLES)),
    st.sampled_from(DOMAINS),
    st.sampled_from((*DATA, "d*")),
    st.sampled_from(("^read$", "^(read|write)$", "^.*$")),
    st.sampled_from(("allow", "allow", "deny")),
)


@st.composite
def links(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draw a link from a user or a role to a later role: no circle, and no chain that pycasbin gives up on."""
    names = (*USERS, *ROLES)
    low = draw(st.integers(0, len(names) - 2))
    high = draw(st.integers(max(low + 1, len(USERS)), len(names) - 1))
    return names[low], names[high], draw(st.sampled_from(DOMAINS))


QUESTIONS = tuple(product(USERS, DOMAINS, DATA, (*ACTS, "delete")))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rules=st.lists(RULES, min_size=1, max_size=12, unique=True),
    more=st.lists(links(), max_size=10, unique=True),
    gone=st.lists(st.integers(0, 11), max_size=4, unique=True),
)
def test_what_is_added_and_removed_leaves_the_same_answers(
    rules: list[tuple[str, ...]], more: list[tuple[str, ...]], gone: list[int]
) -> None:
    theirs: Any = casbin.Enforcer(casbin.Enforcer.new_model(text=MODEL))
    ours = Enforcer(MODEL)
    for each in (theirs, ours):
        for link in more:
            each.add_grouping_policy(*link)
        assert each.add_policies([list(rule) for rule in rules])
        for at in gone:
            if 0 < at < len(rules):
                each.remove_policy(*rules[at])
    assert ours.batch_enforce(QUESTIONS) == [theirs.enforce(*question) for question in QUESTIONS]
    for user in USERS:
        for domain in DOMAINS:
            mine = set(ours.get_implicit_roles_for_user(user, domain))
            assert mine == set(theirs.get_implicit_roles_for_user(user, domain))
        for rule in ours.get_implicit_permissions_for_user(user, "dom1"):
            assert rule in ours.get_policy()
            assert rule[4] == "allow"
