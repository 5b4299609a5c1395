"""Loading, asking and switching: what pycasbin calls its core enforcer."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pdp.adapters.casbin_shape import Shelf, is_adapter
from pdp.adapters.clock import SystemClock
from pdp.casbin_compat._sources import as_path, model_text, policy_rows
from pdp.casbin_compat._state import Function, Paths, Rule, State
from pdp.engine.casbin_text import Context, print_row
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.model.attributes import NO_ATTRIBUTES
from pdp.model.decision import Effect

_PLAIN: Final = frozenset({str, int, float, bool})
_MATCHING: Final = MappingProxyType(
    {
        **{f"key_match{number}": f"keyMatch{number}" for number in ("", 2, 3, 4, 5)},
        "regex_match": "regexMatch",
        "glob_match": "globMatch",
        "ip_match": "ipMatch",
    }
)


class NotOfferedError(PortcullisError, NotImplementedError):
    """A call of pycasbin's that cannot be right; the message names the divergence."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(Reason.BAD_REQUEST, message, advice=advice)


@dataclass(frozen=True, slots=True)
class EnforceContext:
    """Which numbered set answers; all four are of one number (D-05)."""

    rtype: str
    ptype: str
    etype: str
    mtype: str

    @property
    def suffix(self) -> str:
        """The number of the set, empty for the first."""
        numbers = {one[1:] for one in (self.rtype, self.ptype, self.etype, self.mtype)}
        if len(numbers) != 1 or (self.rtype[:1], self.ptype[:1], self.etype[:1], self.mtype[:1]) != (
            "r",
            "p",
            "e",
            "m",
        ):
            raise NotOfferedError("D-05: a context is one complete set, such as r2, p2, e2 and m2")
        return numbers.pop()


def admitted(value: Any, paths: Paths) -> Any:
    """Return a value of a request as the engine takes it: exactly of built-in types (D-25).

    Of a mapping or an object of the application only what a matcher reads is taken (`paths`), once, before anything is
    decided; functions that were added are given the same.
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, its plain text
    if isinstance(value, list | tuple):
        return [admitted(item, frozenset()) for item in value]
    names = {path[0] for path in paths}
    return {name: _member(value, name, frozenset(path[1:] for path in paths if path[0] == name)) for name in names}


def _member(value: Any, name: str, paths: Paths) -> Any:
    """Return what an object or mapping has under a name; None, which compares with nothing, if there is nothing."""
    found = (
        value.get(name) if isinstance(value, Mapping) else None if name.startswith("_") else getattr(value, name, None)
    )
    return admitted(found, frozenset(path for path in paths if path))


class Core:
    """An enforcer's state and how it is asked; policies and roles are managed by the classes that build on this."""

    def __init__(
        self,
        model: Any = None,
        adapter: Any = None,
        enable_log: bool = False,  # noqa: ARG002, FBT001, FBT002 - pycasbin's signature
        logging_config: Mapping[str, Any] | None = None,  # noqa: ARG002 - likewise
        *,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """Load a model, and a policy if there is one; `now_ms` is the clock that timed roles and conditions read."""
        self._lock = threading.RLock()
        self._now_ms = now_ms or SystemClock().now_ms
        self._source = model
        self._adapter = adapter
        self.auto_save = True
        self._asked = False
        self._state = State(text=model_text(model))
        self._load()

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def local(self) -> bool:
        """Whether this policy means something in this process only, and so is never published."""
        return self._state.local

    def _made(self, rules: Iterable[Rule], new: Sequence[Rule] = ()) -> State:
        """Return the state with other rules, of which `new` were not there; to be swapped in by `_change`.

        Where requests are asked meanwhile, it is compiled here, so that none of them waits. In a run of changes that
        nobody asks between, only what is new is looked at, and the first request compiles: a thousand `add_policy` calls
        at start are one compilation.
        """
        made = self._state.having(rules)
        return made.checked() if self._asked else made.admitting(new)

    def _change(self, made: State) -> None:
        """Make a state the current one, by one reference."""
        self._asked = False
        self._state = made

    def _load(self) -> None:
        rows = policy_rows(self._adapter, self._state.model)
        self._change(self._state.having((row.section, row.fields) for row in rows).checked())

    def load_policy(self) -> None:
        """Read the policy again; while that goes on, and if it fails, the one that is held stays."""
        with self._lock:
            self._load()

    def save_policy(self) -> None:
        """Write the policy to where it came from: its file, or its adapter."""
        path = as_path(self._adapter)
        if is_adapter(self._adapter):
            self._adapter.save_policy(Shelf(self._state.rules))
        elif path is not None:
            path.write_text("".join(f"{print_row(row)}\n" for row in self._state.rows), encoding="utf-8")
        else:
            raise NotOfferedError("a policy that came as a text has nowhere to be saved")

    def clear_policy(self) -> None:
        """Drop every row; everything is denied then (D-02)."""
        with self._lock:
            self._change(self._state.having(()).checked())

    def load_model(self) -> None:
        """Read the model again, and drop every row."""
        with self._lock:
            self._change(replace(self._state, text=model_text(self._source), rules=()).checked())

    def set_model(self, m: Any) -> None:
        """Take another model, and drop every row."""
        with self._lock:
            self._source = m
            self.load_model()

    @staticmethod
    def new_model(path: str = "", text: str = "") -> str:
        """Return a model for `Enforcer` and `set_model`: its text."""
        return model_text(Path(path)) if path else text

    def get_model(self) -> Shelf:
        """Return a copy of the rows in the shape of a Casbin model; changing it changes nothing."""
        return Shelf(self._state.rules)

    def get_adapter(self) -> Any:
        """Return the adapter."""
        return self._adapter

    def set_adapter(self, adapter: Any) -> None:
        """Take another adapter; `load_policy` reads it."""
        self._adapter = adapter

    def is_filtered(self) -> bool:
        """Return False: there are no partial loads (D-50)."""
        return False

    # --- functions ---------------------------------------------------------------------------------------------------

    def add_function(self, name: str, func: Function) -> None:
        """Let matchers call a function of this process. The enforcer is local from then on."""
        with self._lock:
            functions = MappingProxyType({**self._state.functions, name: func})
            self._change(replace(self._state, functions=functions, local=True).checked())

    def add_named_matching_func(self, ptype: str, fn: Function) -> bool:
        """Read the left sides of a role section as patterns, by one of pycasbin's matching functions."""
        return self._match(ptype, fn, "")

    def add_named_domain_matching_func(self, ptype: str, fn: Function) -> bool:
        """Read the domains of a role section as patterns, by one of pycasbin's matching functions."""
        return self._match(ptype, fn, "_domain")

    def _match(self, ptype: str, fn: Function, part: str) -> bool:
        name = getattr(fn, "__name__", "").removesuffix("_func")
        if name not in _MATCHING:
            raise NotOfferedError(
                f"D-37: `{name or fn}` is not a matching function of the closed list", advice=", ".join(_MATCHING)
            )
        with self._lock:
            if ptype not in self._state.model.roles:
                return False
            matching = MappingProxyType({**self._state.matching, f"{ptype}{part}": _MATCHING[name]})
            self._change(replace(self._state, matching=matching).checked())
        return True

    # --- asking ------------------------------------------------------------------------------------------------------

    def new_enforce_context(self, suffix: str) -> EnforceContext:
        """Return the context of a numbered set: `"2"`."""
        return EnforceContext(f"r{suffix}", f"p{suffix}", f"e{suffix}", f"m{suffix}")

    def enforce(self, *rvals: Any) -> bool:
        """Decide whether the request is allowed.

        Raises:
            BadRequestError: it has the wrong number of values, or names a set that is not there.
        """
        return self._ask(self._state, rvals).effect is Effect.ALLOW

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:
        """Decide, and return with it the row that decided: empty for a deny that no row made."""
        state = self._state
        outcome = self._ask(state, rvals)
        rule: list[str] = []
        if outcome.determining:
            line = min(int(row.rpartition(":")[2]) for row in outcome.determining)
            rule = list(state.rules[line - 1][1])
        return outcome.effect is Effect.ALLOW, rule

    def batch_enforce(self, rvals: Iterable[Sequence[Any]]) -> list[bool]:
        """Decide each request by itself, all by one policy; a malformed one is denied and spoils no other (D-52)."""
        state = self._state
        return [self._decided(state, one) for one in rvals]

    def _decided(self, state: State, rvals: Sequence[Any]) -> bool:
        try:
            return self._ask(state, tuple(rvals)).effect is Effect.ALLOW
        except BadRequestError:
            return False

    def _ask(self, state: State, rvals: Sequence[Any]) -> Outcome:
        suffix = ""
        # By shape: pycasbin's own `EnforceContext` will do.
        if rvals and all(hasattr(rvals[0], name) for name in ("rtype", "ptype", "etype", "mtype")):
            first, *rest = rvals
            suffix = EnforceContext(first.rtype, first.ptype, first.etype, first.mtype).suffix
            rvals = rest
        context = state.model.contexts.get(suffix)
        if context is None:
            raise BadRequestError(f"there is no set r{suffix}, p{suffix}, e{suffix}, m{suffix}")
        if len(rvals) != len(context.request):
            raise BadRequestError(f"a request is ({', '.join(context.request)}), not {len(rvals)} values")
        if state.missing:
            raise NotOfferedError(
                f"the matcher calls `{state.missing[0]}`, which is not built in", advice="call add_function first"
            )
        if any(value == "" for value in rvals if type(value) is str):
            return _BLANK  # D-03
        paths = state.paths.get(suffix, {})
        values = tuple(
            admitted(value, paths.get(name, frozenset())) for name, value in zip(context.request, rvals, strict=True)
        )
        if any(type(value) is dict for value in values) and not state.local:
            self._mark_local()
        return self._evaluated(state, context, values)

    def _evaluated(self, state: State, context: Context, values: tuple[Any, ...]) -> Outcome:
        self._asked = True
        if state.snapshot is None:
            return _NOTHING  # D-02
        request = EngineRequest(context=context.suffix, values=values, memberships={}, attributes=NO_ATTRIBUTES)
        return evaluate(state.snapshot, request, self._now_ms())

    def _mark_local(self) -> None:
        with self._lock:
            self._state = replace(self._state, local=True).checked()

    # --- switches ----------------------------------------------------------------------------------------------------

    def enable_enforce(self, enabled: bool = True) -> None:  # noqa: FBT001, FBT002 - pycasbin's signature
        """Do nothing for True; there is no False.

        Raises:
            NotOfferedError: `enabled` is False (D-06).
        """
        if not enabled:
            raise NotOfferedError("D-06: there is no switch that allows everything", advice="give the tester a role")

    def enable_auto_save(self, auto_save: bool) -> None:  # noqa: FBT001 - pycasbin's signature
        """Say whether each change also goes to the adapter; a file is written by `save_policy` alone."""
        self.auto_save = auto_save

    def enable_auto_build_role_links(self, auto_build_role_links: bool) -> None:  # noqa: FBT001 - pycasbin's signature
        """Do nothing: role links are never out of date."""

    def enable_auto_notify_watcher(self, auto_notify_watcher: bool) -> None:  # noqa: FBT001 - pycasbin's signature
        """Do nothing: there is no watcher."""

    def build_role_links(self) -> None:
        """Do nothing: role links are part of every snapshot."""

    def _not_offered(self, *_: Any, **__: Any) -> NoReturn:
        raise NotOfferedError("D-53: watchers are not used: the world travels as a numbered log")

    set_watcher = _not_offered

    def load_filtered_policy(self, _filter: Any) -> NoReturn:
        """Raise: there are no partial loads."""
        raise NotOfferedError("D-50: a policy is loaded whole")

    load_increment_filtered_policy = load_filtered_policy

    def get_role_manager(self) -> NoReturn:
        """Raise: roles are part of the snapshot."""
        raise NotOfferedError("D-43: roles are data", advice="use add_named_matching_func and the role calls")

    def get_named_role_manager(self, _ptype: str) -> NoReturn:
        """Raise, as `get_role_manager`."""
        self.get_role_manager()

    def set_role_manager(self, _rm: Any) -> NoReturn:
        """Raise, as `get_role_manager`."""
        self.get_role_manager()

    def set_named_role_manager(self, _ptype: str, _rm: Any) -> NoReturn:
        """Raise, as `get_role_manager`."""
        self.get_role_manager()

    def init_rm_map(self) -> NoReturn:
        """Raise, as `get_role_manager`."""
        self.get_role_manager()

    def set_effector(self, _eft: Any) -> NoReturn:
        """Raise: effects are those of the model."""
        raise NotOfferedError("D-05: an effect is written in the model, and checked there")

    def add_named_link_condition_func(self, *_: Any) -> NoReturn:
        """Raise: the condition of a link is its start and end, in the row."""
        raise NotOfferedError(
            "D-42: a condition that code attaches is gone after a reload",
            advice="g = _, _, (_, _) and rows with a start and an end in UTC",
        )

    add_named_domain_link_condition_func = add_named_link_condition_func
    set_named_link_condition_func_params = add_named_link_condition_func
    set_named_domain_link_condition_func_params = add_named_link_condition_func


_NOTHING: Final = Outcome(effect=Effect.DENY, reason=Reason.NO_GRANT)
_BLANK: Final = Outcome(effect=Effect.DENY, reason=Reason.BAD_REQUEST)

__all__ = ["Core", "EnforceContext", "NotOfferedError", "Rule"]
