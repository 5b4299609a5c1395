"""On the safe subset our enforcer answers as pycasbin's does: the same calls, the same answers, over each family."""

import inspect
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import casbin
import pytest

from pdp.casbin_compat import Enforcer
from tests.unit.casbin_compat.families import FAMILIES, Family

INTERNAL = {"configure_logging", "init_with_adapter", "init_with_file", "init_with_model_and_adapter"}


def both(tmp_path: Path, family: Family) -> tuple[Any, Enforcer]:
    model, policy = tmp_path / "model.conf", tmp_path / "policy.csv"
    model.write_text(family.model, encoding="utf-8")
    policy.write_text(family.policy, encoding="utf-8")
    return casbin.Enforcer(str(model), str(policy)), Enforcer(str(model), str(policy))


def roles_of(family: Family) -> set[str]:
    rows = [line.split(", ") for line in family.policy.splitlines()]
    return {row[2] for row in rows if row[0] == "g"}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_question_of_the_family_is_answered_alike(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    theirs, ours = both(tmp_path, family)
    questions = [question for question in product(*family.values) if question[0] not in roles_of(family)]
    expected = [theirs.enforce(*question) for question in questions]
    assert True in expected
    assert False in expected
    assert ours.batch_enforce(questions) == expected
    assert [ours.enforce(*question) for question in questions] == expected
    assert [ours.enforce_ex(*question)[0] for question in questions] == expected
    for question in questions:
        allowed, rule = ours.enforce_ex(*question)
        their_rule = theirs.enforce_ex(*question)[1]
        assert bool(rule) is bool(their_rule) or not allowed
        assert not rule or rule in ours.get_policy()


LISTS: dict[str, Callable[[Any], Any]] = {
    "get_policy": lambda e: e.get_policy(),
    "get_all_subjects": lambda e: e.get_all_subjects(),
    "get_all_objects": lambda e: e.get_all_objects(),
    "get_all_actions": lambda e: e.get_all_actions(),
    "get_filtered_policy": lambda e: e.get_filtered_policy(1, "data1"),
    "has_policy": lambda e: (e.has_policy("alice", "data1", "read"), e.has_policy(["alice", "data1", "x"])),
    "get_permissions_for_user": lambda e: e.get_permissions_for_user("alice"),
    "has_permission_for_user": lambda e: e.has_permission_for_user("alice", "data1", "read"),
}
ROLE_LISTS: dict[str, Callable[[Any], Any]] = {
    "get_all_roles": lambda e: e.get_all_roles(),
    "get_grouping_policy": lambda e: e.get_grouping_policy(),
    "get_filtered_grouping_policy": lambda e: e.get_filtered_grouping_policy(0, "alice"),
    "has_grouping_policy": lambda e: e.has_grouping_policy("alice", "data2_admin"),
    "get_roles_for_user": lambda e: [sorted(e.get_roles_for_user(name)) for name in ("alice", "cathy", "root", "x")],
    "get_users_for_role": lambda e: [sorted(e.get_users_for_role(name)) for name in ("data2_admin", "root", "x")],
    "has_role_for_user": lambda e: (e.has_role_for_user("alice", "data2_admin"), e.has_role_for_user("alice", "x")),
    "get_implicit_roles_for_user": lambda e: [sorted(e.get_implicit_roles_for_user(n)) for n in ("alice", "cathy")],
    "get_implicit_permissions_for_user": lambda e: [
        sorted(e.get_implicit_permissions_for_user(name)) for name in ("alice", "bob", "cathy")
    ],
    "get_implicit_users_for_permission": lambda e: sorted(e.get_implicit_users_for_permission("data2", "write")),
}


@pytest.mark.parametrize("call", sorted(LISTS))
@pytest.mark.parametrize("name", ["basic", "roles", "role hierarchy"])
def test_lists_are_alike(tmp_path: Path, name: str, call: str) -> None:
    theirs, ours = both(tmp_path, FAMILIES[name])
    assert LISTS[call](ours) == LISTS[call](theirs)


@pytest.mark.parametrize("call", sorted(ROLE_LISTS))
@pytest.mark.parametrize("name", ["roles", "role hierarchy"])
def test_lists_of_roles_are_alike(tmp_path: Path, name: str, call: str) -> None:
    theirs, ours = both(tmp_path, FAMILIES[name])
    assert ROLE_LISTS[call](ours) == ROLE_LISTS[call](theirs)


def test_lists_in_domains_are_alike(tmp_path: Path) -> None:
    for each in both(tmp_path, FAMILIES["domains"]):
        assert each.get_roles_for_user_in_domain("alice", "domain1") == ["admin"]
        assert each.get_roles_for_user_in_domain("alice", "domain2") == []
        assert each.get_users_for_role_in_domain("admin", "domain2") == ["bob"]
        assert each.get_all_roles_by_domain("domain1") == ["admin"]
        assert each.get_implicit_roles_for_user("alice", "domain1") == ["admin"]
        assert each.get_permissions_for_user_in_domain("admin", "domain1") == [
            ["admin", "domain1", "data1", "read"],
            ["admin", "domain1", "data1", "write"],
        ]
        assert each.get_implicit_permissions_for_user("bob", "domain2") == [
            ["admin", "domain2", "data2", "read"],
            ["admin", "domain2", "data2", "write"],
        ]
        assert each.get_implicit_users_for_resource_by_domain("data2", "domain2") == [
            ["bob", "domain2", "data2", "read"],
            ["bob", "domain2", "data2", "write"],
        ]


CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda e: e.add_policy("eve", "data3", "read"),
    lambda e: e.add_policy(["eve", "data3", "read"]),
    lambda e: e.add_policies([["u1", "data1", "read"], ["u2", "data2", "read"]]),
    lambda e: e.add_policies([["u3", "data1", "read"], ["u2", "data2", "read"]]),
    lambda e: e.add_policies_ex([["u3", "data1", "read"], ["u2", "data2", "read"]]),
    lambda e: e.add_named_policy("p", "u4", "data1", "read"),
    lambda e: e.add_named_policies("p", [["u5", "data1", "read"]]),
    lambda e: e.update_policy(["eve", "data3", "read"], ["eve", "data3", "write"]),
    lambda e: e.update_policy(["nobody", "data3", "read"], ["eve", "data3", "write"]),
    lambda e: e.update_policies([["u1", "data1", "read"]], [["u1", "data1", "write"]]),
    lambda e: e.remove_policy("u1", "data1", "write"),
    lambda e: e.remove_policy("u1", "data1", "write"),
    lambda e: e.remove_policies([["u2", "data2", "read"], ["u3", "data1", "read"]]),
    lambda e: e.remove_filtered_policy(0, "u4"),
    lambda e: e.remove_named_policy("p", "u5", "data1", "read"),
    lambda e: e.remove_filtered_named_policy("p", 1, "no such data"),
    lambda e: e.add_grouping_policy("eve", "data2_admin"),
    lambda e: e.add_grouping_policies([["u1", "data2_admin"], ["u2", "data2_admin"]]),
    lambda e: e.add_named_grouping_policy("g", "u3", "data2_admin"),
    lambda e: e.remove_grouping_policy("u1", "data2_admin"),
    lambda e: e.remove_grouping_policies([["u2", "data2_admin"]]),
    lambda e: e.remove_filtered_grouping_policy(0, "u3"),
    lambda e: e.remove_named_grouping_policy("g", "u3", "data2_admin"),
    lambda e: e.add_role_for_user("bob", "data2_admin"),
    lambda e: e.add_role_for_user("bob", "data2_admin"),
    lambda e: e.delete_role_for_user("bob", "data2_admin"),
    lambda e: e.delete_role_for_user("bob", "data2_admin"),
    lambda e: e.delete_roles_for_user("eve"),
    lambda e: e.add_permission_for_user("bob", "data1", "write"),
    lambda e: e.delete_permission_for_user("bob", "data1", "write"),
    lambda e: e.delete_permissions_for_user("bob"),
    lambda e: e.delete_permission("data3", "write"),
    lambda e: e.delete_user("alice"),
    lambda e: e.delete_user("alice"),
    lambda e: e.add_role_for_user("cathy", "data2_admin"),
    lambda e: e.delete_role("data2_admin"),
)


def test_changes_succeed_and_fail_alike_and_leave_the_same_rules(tmp_path: Path) -> None:
    theirs, ours = both(tmp_path, FAMILIES["roles"])
    for each in (theirs, ours):
        each.enable_auto_save(auto_save=False)
    for number, change in enumerate(CHANGES):
        assert bool(change(ours)) is bool(change(theirs)), number
        assert ours.get_policy() == theirs.get_policy(), number
        assert ours.get_grouping_policy() == theirs.get_grouping_policy(), number
        if theirs.get_policy():
            assert ours.enforce("cathy", "data2", "read") is theirs.enforce("cathy", "data2", "read"), number


def test_every_call_of_pycasbin_is_here_and_takes_what_it_takes() -> None:
    missing = []
    for name, theirs in inspect.getmembers(casbin.Enforcer, callable):
        if name.startswith("_") or name in INTERNAL:
            continue
        ours = getattr(Enforcer, name, None)
        if ours is None:
            missing.append(name)
            continue
        wanted = [one for one in inspect.signature(theirs).parameters.values() if one.name != "self"]
        parameters = [one for one in inspect.signature(ours).parameters.values() if one.name != "self"]
        anything = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
        assert anything or len(parameters) >= len(wanted), name
        for one, other in zip(wanted, parameters, strict=False):
            if not other.name.startswith("_") and one.kind is not inspect.Parameter.VAR_POSITIONAL and not anything:
                assert one.name == other.name, name
    assert missing == []
