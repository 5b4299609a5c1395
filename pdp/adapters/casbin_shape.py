"""What a Casbin adapter sees of a model, rebuilt without Casbin: any adapter can put its rows down here, and take them up.

An adapter is handed a model and writes into `model.model["p"]["p"].policy`, or calls `model.add_policy`. A `Shelf` has this
shape and one thing more: it takes rows of *every* type. In pycasbin a row whose type the model does not define vanishes
(CASBIN.md D-09); here it stands on the shelf, and the compiler refuses it by name.
"""

import ast
import asyncio
import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.engine.casbin_text import Row
from pdp.errors import ConfigError


class Assertion:
    """The rows of one type, as an adapter fills and reads them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.value = ""
        self.tokens: list[str] = []
        self.policy: list[list[str]] = []
        self.policy_map: dict[str, int] = {}
        self.priority_index = -1


class _Keys(dict[str, Any]):
    """A dictionary that says of every letter-like key that it is there, and makes it when it is asked for."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(key)

    def keys(self) -> Any:
        """Return a view whose `in` is as ours; iterating it yields what is really there."""
        return _View(self)


class _View:
    def __init__(self, of: dict[str, Any]) -> None:
        self._of = of

    def __contains__(self, key: object) -> bool:
        return key in self._of

    def __iter__(self) -> Iterator[str]:
        return iter(dict.keys(self._of))

    def __len__(self) -> int:
        return len(self._of)


class _Types(_Keys):
    def __missing__(self, key: str) -> Assertion:
        made = self[key] = Assertion(key)
        return made

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - as a dictionary's
        return self[key]


class _Letters(_Keys):
    def __missing__(self, key: str) -> _Types:
        made = self[key] = _Types()
        return made

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - as a dictionary's
        return self[key]


class Shelf:
    """A stand-in for `casbin.Model`, on which an adapter puts rows: `p`, `g` and whatever else it has."""

    def __init__(self, rows: Iterable[tuple[str, Sequence[str]]] = ()) -> None:
        self.model = _Letters()
        # What is always there: adapters that save walk `model["p"]` and `model["g"]`.
        for letter in ("p", "g"):
            _ = self.model[letter][letter]
        for section, fields in rows:
            self.model[section[0]][section].policy.append(list(fields))

    def __getitem__(self, letter: str) -> Any:
        return self.model[letter]

    def keys(self) -> Any:
        """Return the letters."""
        return self.model.keys()

    def items(self) -> Any:
        """Return the letters with their types."""
        return self.model.items()

    def has_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        """Tell whether a row is on the shelf."""
        return list(rule) in self.model[sec][ptype].policy

    def add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        """Put down a row."""
        self.model[sec][ptype].policy.append(list(rule))
        return True

    def add_policies(self, sec: str, ptype: str, rules: Iterable[Sequence[str]]) -> bool:
        """Put down rows."""
        for rule in rules:
            self.add_policy(sec, ptype, rule)
        return True

    def clear_policy(self) -> None:
        """Take everything off."""
        for types in self.model.values():
            for assertion in types.values():
                assertion.policy = []

    def rows(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield every row with its type, policies first, each type in the adapter's order."""
        for letter in sorted(self.model, key=lambda one: (one != "p", one)):
            for section, assertion in self.model[letter].items():
                for fields in assertion.policy:
                    yield section, tuple(fields)


def is_adapter(value: object) -> bool:
    """Tell whether `value` has the shape of a Casbin adapter."""
    return callable(getattr(value, "load_policy", None))


def load_rows(adapter: Any, *, file: str) -> tuple[Row, ...]:
    """Return all that a Casbin adapter holds, numbered in its order as lines of `file`.

    Raises:
        ConfigError: the adapter failed, or gave something else than rows of text; it is named.
    """
    shelf = Shelf()
    try:
        loading = adapter.load_policy(shelf)
        if inspect.isawaitable(loading):
            asyncio.run(_awaited(loading))
    except Exception as error:  # foreign code, at our outermost boundary to it: whatever it raises, there is no policy
        raise ConfigError(f"the adapter {type(adapter).__name__} failed: {type(error).__name__}: {error}") from error
    rows = tuple(Row(section, fields, file, line) for line, (section, fields) in enumerate(shelf.rows(), start=1))
    for row in rows:
        if not all(type(value) is str for value in row.fields):
            raise ConfigError(f"the adapter {type(adapter).__name__} gave a value that is no text in row {row.line}")
    return rows


async def _awaited(loading: Any) -> None:
    await loading


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """Where an adapter comes from: `module:Class`, and the plain values that it is made with."""

    module: str
    name: str
    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AdapterSpec":
        """Return what `module:Class` or `module:Class("sqlite:///policy.db", filtered=False)` names.

        Raises:
            ConfigError: it is written in another way, or an argument is more than a plain value.
        """
        module, colon, call = text.partition(":")
        try:
            tree = ast.parse(call.strip(), mode="eval").body
            node = tree if isinstance(tree, ast.Call) else ast.Call(func=tree, args=[], keywords=[])
            if not colon or not module or not isinstance(node.func, ast.Name | ast.Attribute):
                raise ValueError(text)
            named = tuple((str(word.arg), ast.literal_eval(word.value)) for word in node.keywords if word.arg)
            return cls(
                module=module.strip(),
                name=ast.unparse(node.func),
                arguments=tuple(ast.literal_eval(argument) for argument in node.args),
                named=named,
            )
        except (ValueError, SyntaxError, TypeError) as error:
            raise ConfigError(
                f"`{text[:80]}` names no adapter", advice='write module:Class or module:Class("argument", name=1)'
            ) from error

    def open(self) -> Any:
        """Import and make the adapter.

        Raises:
            ConfigError: the module or class is not there, or cannot be made so, or is no adapter.
        """
        try:
            made: Any = importlib.import_module(self.module)
            for part in self.name.split("."):
                made = getattr(made, part)
            adapter = made(*self.arguments, **dict(self.named))
        except Exception as error:  # foreign code, as in `load_rows`
            raise ConfigError(
                f"cannot make the adapter {self.module}:{self.name}: {type(error).__name__}: {error}"
            ) from error
        if not is_adapter(adapter):
            raise ConfigError(f"{self.module}:{self.name} has no `load_policy`: it is no Casbin adapter")
        return adapter
