"""What our enforcer does its own way: sources by shape, refusals by number, whole changes or none, local policies."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import casbin
import pytest

from pdp.casbin_compat import EnforceContext, Enforcer, NotOfferedError, _state
from pdp.engine.findings import PackRefused
from pdp.engine.pack import Pack, load_pack
from pdp.errors import BadRequestError, ConfigError, PortcullisError
from tests.unit.casbin_compat.families import ALLOW, BASIC, BOTH, FAMILIES, ROLE, model

ROLES = FAMILIES["roles"]
READ = ("alice", "data2", "read")


class Store:
    """An adapter of a database: keeps rows, and what it was told."""

    def __init__(self, *rows: str) -> None:
        self.rows = list(rows)
        self.told: list[tuple[Any, ...]] = []
        self.accepts = True

    def load_policy(self, model: Any) -> None:
        for row in self.rows:
            casbin.persist.load_policy_line(row, model)

    def save_policy(self, model: Any) -> None:
        self.told.append(("save", [list(fields) for fields in model["p"]["p"].policy]))

    def add_policy(self, *arguments: Any) -> bool:
        self.told.append(("add", *arguments))
        return self.accepts

    def remove_policy(self, *arguments: Any) -> bool:
        self.told.append(("remove", *arguments))
        return self.accepts


# --- where a policy comes from ---------------------------------------------------------------------------------------


def test_paths_texts_adapters_and_models_by_their_shape(tmp_path: Path) -> None:
    path, policy = tmp_path / "model.conf", tmp_path / "policy.csv"
    path.write_text(ROLES.model, encoding="utf-8")
    policy.write_text(ROLES.policy, encoding="utf-8")
    theirs = casbin.Enforcer.new_model(text=ROLES.model)
    sources = [
        (str(path), str(policy)),
        (path, policy),
        (ROLES.model, ROLES.policy),
        (ROLES.model, Store(*ROLES.policy.splitlines())),
        (str(path), casbin.persist.adapters.FileAdapter(str(policy))),
        (theirs, casbin.persist.adapters.string_adapter.StringAdapter(ROLES.policy)),
        (Enforcer.new_model(text=ROLES.model), ROLES.policy),
        (Enforcer.new_model(str(path)), ROLES.policy),
    ]
    for source in sources:
        enforcer = Enforcer(*source)
        assert (enforcer.enforce(*READ), enforcer.enforce("bob", "data2", "read")) == (True, False)


@pytest.mark.parametrize("source", [None, 5, object(), "no/such/file.conf"])
def test_what_is_no_model_is_told(source: Any) -> None:
    with pytest.raises(ConfigError):
        Enforcer(source)
    with pytest.raises(ConfigError):
        Enforcer(ROLES.model, object() if source is None else source)


def test_a_policy_that_does_not_compile_is_refused_with_its_findings() -> None:
    with pytest.raises(PackRefused) as caught:
        Enforcer(ROLES.model, f"{BASIC}pp, eve, data1, read\np, too, short\n")
    assert [one.code for one in caught.value.findings] == ["PC110", "PC112"]


def test_a_model_that_allows_by_default_raises_d01() -> None:
    with pytest.raises(PortcullisError, match="D-01"):
        Enforcer(model(ROLE, roles="g = _, _", policy="sub, obj, act, eft", effect="!some(where (p.eft == deny))"))


def test_an_empty_policy_denies_everything() -> None:
    enforcer = Enforcer(model("regexMatch(r.sub, p.sub)"))
    assert enforcer.enforce("anyone", "data1", "read") is False
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    enforcer.clear_policy()
    assert (enforcer.get_policy(), enforcer.enforce(*READ)) == ([], False)


# --- what is not offered ---------------------------------------------------------------------------------------------

NOT_OFFERED = {
    "enable_enforce": (("D-06",), (False,)),
    "load_filtered_policy": (("D-50",), (None,)),
    "load_increment_filtered_policy": (("D-50",), (None,)),
    "set_watcher": (("D-53",), (None,)),
    "set_effector": (("D-05",), (None,)),
    "get_role_manager": (("D-43",), ()),
    "set_role_manager": (("D-43",), (None,)),
    "add_named_link_condition_func": (("D-42",), ("g", "alice", "admin", print)),
    "set_named_domain_link_condition_func_params": (("D-42",), ("g", "alice", "admin", "dom", "x")),
    "add_named_matching_func": (("D-37",), ("g", lambda one, other: one == other)),
    "set_field_index": (("p",), ("p", "sub", 1)),
}


@pytest.mark.parametrize("call", sorted(NOT_OFFERED))
def test_what_cannot_be_right_raises_and_names_the_entry(call: str) -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    ((entry,), arguments) = NOT_OFFERED[call]
    with pytest.raises(NotOfferedError, match=entry):
        getattr(enforcer, call)(*arguments)
    assert enforcer.enforce("eve", "data1", "read") is False


def test_switches_that_change_nothing_are_taken() -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    enforcer.enable_enforce()
    enforcer.enable_auto_build_role_links(auto_build_role_links=False)
    enforcer.enable_auto_notify_watcher(auto_notify_watcher=True)
    enforcer.build_role_links()
    assert enforcer.is_filtered() is False
    assert enforcer.enforce(*READ) is True


# --- asking ----------------------------------------------------------------------------------------------------------


def test_a_malformed_request_raises_and_spoils_no_batch() -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    with pytest.raises(BadRequestError):
        enforcer.enforce("alice", "data1")
    assert enforcer.batch_enforce([READ, ("alice",), READ, ("alice", "", "read")]) == [True, False, True, False]


def test_the_rule_that_decided_is_returned() -> None:
    enforcer = Enforcer(FAMILIES["deny"].model, FAMILIES["deny"].policy)
    assert enforcer.enforce_ex("alice", "data2", "write") == (False, ["alice", "data2", "write", "deny"])
    assert enforcer.enforce_ex(*READ) == (True, ["data2_admin", "data2", "read", "allow"])
    assert enforcer.enforce_ex("eve", "data2", "read") == (False, [])


TWO_SETS = f"""[request_definition]
r = sub, obj
r2 = sub
[policy_definition]
p = sub, obj, eft
p2 = sub, eft
[policy_effect]
e = {BOTH}
e2 = {ALLOW}
[matchers]
m = r.sub == p.sub && r.obj == p.obj
m2 = r2.sub == p2.sub
"""


def test_a_context_is_a_whole_set_with_its_own_effect() -> None:
    enforcer = Enforcer(TWO_SETS, "p, alice, data1, allow\np2, bob, allow\np2, bob, deny\n")
    second = enforcer.new_enforce_context("2")
    assert second == EnforceContext("r2", "p2", "e2", "m2")
    assert enforcer.enforce(second, "bob") is True  # D-05: pycasbin applies `e` and denies
    theirs = casbin.core_enforcer.EnforceContext("r2", "p2", "e2", "m2")
    assert enforcer.enforce(theirs, "alice") is False
    assert enforcer.enforce("alice", "data1") is True
    with pytest.raises(NotOfferedError, match="D-05"):
        enforcer.enforce(EnforceContext("r2", "p", "e", "m"), "bob")
    with pytest.raises(BadRequestError):
        enforcer.enforce(enforcer.new_enforce_context("3"), "bob")


def test_deep_roles_count_and_who_bears_a_role_name_is_denied() -> None:
    chain = "".join(f"g, r{level}, r{level + 1}\n" for level in range(20))
    enforcer = Enforcer(ROLES.model, f"p, r20, data1, read\ng, alice, r0\n{chain}")
    assert enforcer.enforce("alice", "data1", "read") is True  # D-39
    assert enforcer.enforce("r20", "data1", "read") is False  # D-44
    assert enforcer.get_implicit_roles_for_user("alice") == [f"r{level}" for level in range(21)]
    assert enforcer.get_implicit_users_for_resource("data1") == [["alice", "data1", "read"]]


def test_implicit_lists_hold_what_enforce_confirms_and_no_deny() -> None:
    """D-51: pycasbin lists deny rows, and allow rows that a deny row takes back."""
    enforcer = Enforcer(FAMILIES["deny"].model, FAMILIES["deny"].policy)
    permissions = enforcer.get_implicit_permissions_for_user("alice")
    assert permissions == [["alice", "data1", "read", "allow"], ["data2_admin", "data2", "read", "allow"]]
    assert all(enforcer.enforce("alice", obj, act) for _, obj, act, _ in permissions)
    assert enforcer.get_implicit_users_for_permission("data2", "write") == ["bob"]


def test_conditions_on_objects() -> None:
    enforcer = Enforcer(ROLES.model, "p, alice, price < 10, read\np, alice, price < 20, read\np, alice, x, write\n")
    assert enforcer.get_allowed_object_conditions("alice", "read", "price ") == ["< 10", "< 20"]
    assert enforcer.get_allowed_object_conditions("alice", "write", "price ") is None
    assert enforcer.get_allowed_object_conditions("eve", "read", "price ") is None


def test_patterns_of_roles_and_domains_by_pycasbins_functions() -> None:
    text = model("g2(r.obj, p.obj) && r.sub == p.sub && r.act == p.act", roles="g = _, _\ng2 = _, _")
    enforcer = Enforcer(text, "p, alice, books, read\ng2, /book/:id, books\n")
    assert enforcer.enforce("alice", "/book/1", "read") is False
    assert enforcer.add_named_matching_func("g2", casbin.util.key_match2_func) is True
    assert enforcer.add_named_matching_func("g7", casbin.util.key_match2_func) is False
    assert enforcer.enforce("alice", "/book/1", "read") is True
    assert enforcer.local is False
    domains = FAMILIES["domains"]
    rows = "p, admin, domain1, data1, read\ng, alice, admin, *\n"
    enforcer = Enforcer(domains.model, rows)
    assert enforcer.enforce("alice", "domain1", "data1", "read") is False
    assert enforcer.add_named_domain_matching_func("g", casbin.util.key_match) is True
    assert enforcer.enforce("alice", "domain1", "data1", "read") is True


def test_links_with_a_start_and_an_end_follow_the_clock() -> None:
    now = [1_780_272_000_000]  # 2026-06-01
    text = model(ROLE, roles="g = _, _, (_, _)")
    rows = "p, admin, data1, read\ng, alice, admin, 2026-05-01T00:00:00Z, 2026-07-01T00:00:00Z\n"
    enforcer = Enforcer(text, rows, now_ms=lambda: now[0])
    assert (enforcer.enforce("alice", "data1", "read"), enforcer.get_roles_for_user("alice")) == (True, ["admin"])
    now[0] = 1_790_000_000_000
    assert (enforcer.enforce("alice", "data1", "read"), enforcer.get_roles_for_user("alice")) == (False, [])


# --- changing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda enforcer: enforcer.add_policy("too", "short"),
        lambda enforcer: enforcer.add_named_policy("p9", "a", "b", "c"),
        lambda enforcer: enforcer.add_policies([["eve", "data1", "read"], ["eve", "", "read"]]),
        lambda enforcer: enforcer.add_grouping_policy("data2_admin", "alice"),
        lambda enforcer: enforcer.update_policy(["alice", "data1", "read"], ["alice"]),
    ],
)
def test_a_change_that_is_refused_changes_nothing(change: Any) -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    before = (enforcer.get_policy(), enforcer.get_grouping_policy())
    with pytest.raises(PackRefused):
        change(enforcer)
    assert (enforcer.get_policy(), enforcer.get_grouping_policy()) == before
    assert enforcer.enforce(*READ) is True


@pytest.mark.parametrize("asked", ["", "asked"])
def test_a_circle_of_links_is_refused_whether_or_not_somebody_asks_meanwhile(asked: str) -> None:
    enforcer = Enforcer(ROLES.model, f"{BASIC}g, a, b\ng, b, c\ng, x, y\n")
    if asked:
        enforcer.enforce(*READ)
    assert enforcer.add_grouping_policy("c", "d") is True
    with pytest.raises(PackRefused) as caught:
        enforcer.add_grouping_policy("d", "a")
    assert [one.code for one in caught.value.findings] == ["PC402"]
    assert enforcer.get_implicit_roles_for_user("a") == ["b", "c", "d"]


def test_a_run_of_changes_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    sizes: list[int] = []
    real = _state.compile_policy

    def counted(model: Any, vocabulary: Any, rows: Any) -> Any:
        sizes.append(len(rows))
        return real(model, vocabulary, rows)

    monkeypatch.setattr(_state, "compile_policy", counted)
    for number in range(50):
        enforcer.add_policy(f"user{number}", "data1", "read")
        enforcer.add_role_for_user(f"user{number}", "data2_admin")
    assert enforcer.enforce("user49", "data2", "write") is True
    assert enforcer.enforce("user7", "data1", "read") is True
    assert (sizes[-1], sum(size > 100 for size in sizes)) == (105, 1)


def test_a_repeat_within_a_batch_is_no_success() -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    assert enforcer.add_policies([["eve", "data1", "read"], ["eve", "data1", "read"]]) is False  # D-16
    assert enforcer.has_policy("eve", "data1", "read") is False


def test_what_is_listed_is_a_copy() -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    enforcer.get_policy()[0][0] = "eve"
    enforcer.get_model().add_policy("p", "p", ["eve", "data1", "read"])
    assert enforcer.enforce("eve", "data1", "read") is False


def test_an_adapter_is_asked_before_a_change_is_made() -> None:
    store = Store(*ROLES.policy.splitlines())
    enforcer = Enforcer(ROLES.model, store)
    assert enforcer.add_policy("eve", "data1", "read") is True
    assert enforcer.remove_policy("eve", "data1", "read") is True
    assert store.told == [("add", "p", "p", ["eve", "data1", "read"]), ("remove", "p", "p", ["eve", "data1", "read"])]
    store.accepts = False
    assert enforcer.add_policy("eve", "data1", "read") is False
    assert enforcer.enforce("eve", "data1", "read") is False
    with pytest.raises(NotOfferedError, match="D-49"):
        enforcer.add_policies([["eve", "data1", "read"]])
    enforcer.enable_auto_save(auto_save=False)
    assert enforcer.add_policies([["eve", "data1", "read"]]) is True
    enforcer.save_policy()
    assert store.told[-1][1][-1] == ["eve", "data1", "read"]


def test_saving_and_loading_a_file_keeps_what_a_failed_load_would_lose(tmp_path: Path) -> None:
    policy = tmp_path / "policy.csv"
    policy.write_text(ROLES.policy, encoding="utf-8")
    enforcer = Enforcer(ROLES.model, policy)
    enforcer.add_policy("eve", "data, 1", "read")
    enforcer.save_policy()
    assert Enforcer(ROLES.model, policy).enforce("eve", "data, 1", "read") is True
    policy.write_text("p, cut", encoding="utf-8")
    with pytest.raises(PackRefused):
        enforcer.load_policy()
    assert enforcer.enforce("eve", "data, 1", "read") is True
    with pytest.raises(NotOfferedError):
        Enforcer(ROLES.model, ROLES.policy).save_policy()


def test_another_model_drops_the_rules() -> None:
    enforcer = Enforcer(ROLES.model, ROLES.policy)
    enforcer.set_model(FAMILIES["basic"].model)
    assert (enforcer.get_policy(), enforcer.enforce("alice", "data1", "read")) == ([], False)
    enforcer.set_adapter(BASIC)
    enforcer.load_policy()
    assert (enforcer.enforce("alice", "data1", "read"), enforcer.get_adapter()) == (True, BASIC)


def test_readers_never_see_half_a_change() -> None:
    """D-46: a role moves back and forth between two rules of one change; nobody is ever without it or has both."""
    enforcer = Enforcer(ROLES.model, "p, one, data1, read\np, two, data2, read\ng, alice, one\n")
    stop = threading.Event()
    seen: set[tuple[bool, ...]] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(tuple(enforcer.batch_enforce([("alice", "data1", "read"), ("alice", "data2", "read")])))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        assert enforcer._update("g", [["alice", "one"]], [["alice", "two"]])
        assert enforcer._update("g", [["alice", "two"]], [["alice", "one"]])
    stop.set()
    for reader in readers:
        reader.join()
    assert seen <= {(True, False), (False, True)}


# --- local -----------------------------------------------------------------------------------------------------------


@dataclass
class Person:
    name: str
    age: int
    home: Any = None

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_objects_have_attributes_here_and_make_the_enforcer_local() -> None:
    enforcer = Enforcer(model("r.sub.age > 18 && r.sub.home.city == p.sub && r.act == p.act"), "p, Bern, data1, read\n")
    assert enforcer.local is False
    assert set(enforcer.pack_files()) >= {"model.conf", "policy.csv"}

    @dataclass
    class Home:
        city: str

    assert enforcer.enforce(Person("ana", 20, Home("Bern")), "data1", "read") is True
    assert enforcer.enforce({"age": 20, "home": {"city": "Bern"}}, "data1", "read") is True
    assert enforcer.enforce(Person("ana", 17, Home("Bern")), "data1", "read") is False
    assert enforcer.enforce(Person("ana", 20), "data1", "read") is False  # D-24: absent, and not an exception
    assert enforcer.local is True
    with pytest.raises(BadRequestError, match="never published"):
        enforcer.pack_files()


def test_a_value_that_equals_everything_equals_nothing() -> None:
    enforcer = Enforcer(FAMILIES["basic"].model, BASIC)
    assert enforcer.enforce(Person("x", 1), "data1", "read") is False  # D-25


def test_added_functions_are_called_and_make_the_enforcer_local() -> None:
    enforcer = Enforcer(model("startsWith(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"), "p, ali, data1, read\n")
    with pytest.raises(NotOfferedError, match="startsWith"):
        enforcer.enforce("alice", "data1", "read")
    with pytest.raises(BadRequestError):
        enforcer.pack_files()
    enforcer.add_function("startsWith", lambda value, start: value.startswith(start))
    assert (enforcer.enforce("alice", "data1", "read"), enforcer.enforce("bob", "data1", "read")) == (True, False)
    assert enforcer.local is True
    enforcer.add_function("startsWith", lambda _value, _start: 1 / 0)
    assert enforcer.enforce("alice", "data1", "read") is False


def test_what_is_not_local_leaves_as_a_pack() -> None:
    pack = load_pack(Enforcer(ROLES.model, ROLES.policy).pack_files())
    assert isinstance(pack, Pack)
    assert len(pack.rows) == len(ROLES.policy.splitlines())
