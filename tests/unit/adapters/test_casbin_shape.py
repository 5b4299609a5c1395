"""Any Casbin adapter fills a shelf as it fills a model, and no row falls off it."""

from pathlib import Path
from typing import Any

import casbin
import pytest

from pdp.adapters.casbin_shape import AdapterSpec, Shelf, load_rows
from pdp.errors import ConfigError


class ByLetters:
    """An adapter that writes into the model, as those of databases do."""

    def __init__(self, *rows: str, casual: bool = True) -> None:
        self.rows = rows
        self.casual = casual

    def load_policy(self, model: Any) -> None:
        for row in self.rows:
            casbin.persist.load_policy_line(row, model)


class ByCalls:
    def load_policy(self, model: Any) -> None:
        model.add_policies("p", "p", [["alice", "data1", "read"]])
        model.add_policy("g", "g", ["alice", "admin"])


class Waiting:
    async def load_policy(self, model: Any) -> None:
        model.add_policy("p", "p", ["alice", "data1", "read"])


class Failing:
    def load_policy(self, _model: Any) -> None:
        raise OSError("no such database")


class Numbers:
    def load_policy(self, model: Any) -> None:
        model.add_policy("p", "p", ["alice", 5])


def loaded(adapter: Any) -> list[tuple[str, ...]]:
    return [(row.section, *row.fields) for row in load_rows(adapter, file="policy")]


def test_rows_of_every_type_are_kept_also_of_types_that_no_model_defines() -> None:
    adapter = ByLetters("g, alice, admin", "p, alice, data1, read", "pp, eve, x", "P, bob, data2, deny", "p7, x")
    assert loaded(adapter) == [
        ("p", "alice", "data1", "read"),
        ("pp", "eve", "x"),
        ("p7", "x"),
        ("P", "bob", "data2", "deny"),
        ("g", "alice", "admin"),
    ]


def test_adapters_that_call_and_adapters_that_wait() -> None:
    assert loaded(ByCalls()) == [("p", "alice", "data1", "read"), ("g", "alice", "admin")]
    assert loaded(Waiting()) == [("p", "alice", "data1", "read")]


def test_pycasbins_own_adapters_load_and_save(tmp_path: Path) -> None:
    path = tmp_path / "policy.csv"
    path.write_text("p, alice, data1, read\ng, alice, admin\n", encoding="utf-8")
    assert loaded(casbin.persist.adapters.FileAdapter(str(path))) == [
        ("p", "alice", "data1", "read"),
        ("g", "alice", "admin"),
    ]
    casbin.persist.adapters.FileAdapter(str(path)).save_policy(Shelf([("p", ("bob", "data2", "write"))]))
    assert path.read_text(encoding="utf-8") == "p, bob, data2, write"


@pytest.mark.parametrize("adapter", [Failing(), Numbers()])
def test_an_adapter_that_fails_or_gives_no_text_is_named(adapter: Any) -> None:
    with pytest.raises(ConfigError, match=type(adapter).__name__):
        load_rows(adapter, file="policy")


def test_a_spec_imports_the_class_and_gives_it_plain_values() -> None:
    spec = AdapterSpec.parse('casbin.persist.adapters.string_adapter:StringAdapter("p, alice, data1, read")')
    assert loaded(spec.open()) == [("p", "alice", "data1", "read")]
    made = AdapterSpec.parse("a.b:C.d(1, [2], named=None)")
    assert (made.module, made.name, made.arguments, made.named) == ("a.b", "C.d", (1, [2]), (("named", None),))


@pytest.mark.parametrize(
    "text", ["", "module", "module:", ":Class", "m:C(", "m:C(open('x'))", "m:lambda: 1", "m:C(__import__('os'))", "m:1"]
)
def test_a_spec_that_is_more_than_a_name_and_plain_values_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no adapter"):
        AdapterSpec.parse(text)


@pytest.mark.parametrize("text", ["no_such_module:X", "json:NoSuchClass", "json:JSONDecoder", "pathlib:Path(1)"])
def test_what_cannot_be_made_or_is_no_adapter_is_told(text: str) -> None:
    with pytest.raises(ConfigError):
        AdapterSpec.parse(text).open()
