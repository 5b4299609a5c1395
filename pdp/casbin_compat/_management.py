"""Adding, removing, changing and listing rules: pycasbin's management calls, each a whole new snapshot or nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pdp.adapters.casbin_shape import is_adapter
from pdp.casbin_compat._core import Core, NotOfferedError
from pdp.casbin_compat._state import Rule

Fields = Sequence[str]


def _fields(params: Sequence[Any]) -> tuple[str, ...]:
    """Return the fields of one rule, which comes as values or as one list."""
    if len(params) == 1 and isinstance(params[0], list | tuple):
        params = params[0]
    return tuple(params)


def _matches(rule: Sequence[str], start: int, values: Sequence[Any]) -> bool:
    """Tell whether the fields from `start` on are as wanted; an empty value wants nothing, a function decides itself."""
    for at, wanted in enumerate(values, start=start):
        if callable(wanted):
            if at >= len(rule) or not wanted(rule[at]):
                return False
        elif wanted != "" and (at >= len(rule) or rule[at] != wanted):
            return False
    return True


class Management(Core):
    """An enforcer whose rules are listed and changed."""

    # --- changing ----------------------------------------------------------------------------------------------------

    def _saved(self, call: str, *arguments: Any) -> bool:
        """Tell an adapter of a change, before it is made here; False if the adapter refuses it."""
        if not (self.auto_save and is_adapter(self._adapter)):
            return True
        save = getattr(self._adapter, call, None)
        if save is None:
            raise NotOfferedError(
                f"the adapter has no `{call}`: the change would be lost on the next load (D-49)",
                advice="enable_auto_save(False), and save_policy when it is time",
            )
        return save(*arguments) is not False

    def _add(self, section: str, rules: Iterable[Sequence[str]], *, some: bool, single: bool) -> bool:
        with self._lock:
            state = self._state
            wanted = [(section, tuple(rule)) for rule in rules]
            held = set(state.rules)
            fresh = [rule for rule in dict.fromkeys(wanted) if rule not in held]
            # D-16: a repeat within the batch is no success.
            if not fresh or (not some and len(fresh) < len(wanted)):
                return False
            made = self._made((*state.rules, *fresh), fresh)
            lists = [list(fields) for _, fields in fresh]
            call = "add_policy" if single else "add_policies_ex" if some else "add_policies"
            if not self._saved(call, section[0], section, lists[0] if single else lists):
                return False
            self._change(made)
            return True

    def _remove(self, section: str, rules: Iterable[Sequence[str]], call: str, arguments: Callable[[], Any]) -> bool:
        with self._lock:
            state = self._state
            gone = {(section, tuple(rule)) for rule in rules}
            if not gone or not gone <= set(state.rules):
                return False
            made = self._made(rule for rule in state.rules if rule not in gone)
            if not self._saved(call, section[0], section, *arguments()):
                return False
            self._change(made)
            return True

    def _update(self, section: str, old: Sequence[Fields], new: Sequence[Fields]) -> bool:
        if len(old) != len(new):
            raise ValueError("as many new rules as old ones are wanted")
        with self._lock:
            state = self._state
            changes: dict[Rule, Rule] = {
                (section, tuple(before)): (section, tuple(after)) for before, after in zip(old, new, strict=True)
            }
            if not changes.keys() <= set(state.rules):
                return False
            made = self._made((changes.get(rule, rule) for rule in state.rules), tuple(changes.values()))
            lists = ([list(rule) for rule in old], [list(rule) for rule in new])
            if len(old) == 1:
                saved = self._saved("update_policy", section[0], section, lists[0][0], lists[1][0])
            else:
                saved = self._saved("update_policies", section[0], section, *lists)
            if saved:
                self._change(made)
            return saved

    def add_named_policy(self, ptype: str, *params: Any) -> bool:
        """Add a rule; False if it is there."""
        return self._add(ptype, [_fields(params)], some=False, single=True)

    def add_named_policies(self, ptype: str, rules: Iterable[Fields]) -> bool:
        """Add all of the rules; False, and nothing added, if one is there or stands twice."""
        return self._add(ptype, rules, some=False, single=False)

    def add_named_policies_ex(self, ptype: str, rules: Iterable[Fields]) -> bool:
        """Add those of the rules that are not there."""
        return self._add(ptype, rules, some=True, single=False)

    def remove_named_policy(self, ptype: str, *params: Any) -> bool:
        """Remove a rule; False if it is not there."""
        rule = _fields(params)
        return self._remove(ptype, [rule], "remove_policy", lambda: (list(rule),))

    def remove_named_policies(self, ptype: str, rules: Iterable[Fields]) -> bool:
        """Remove all of the rules; False, and nothing removed, if one is not there."""
        gone = [tuple(rule) for rule in rules]
        return self._remove(ptype, gone, "remove_policies", lambda: ([list(rule) for rule in gone],))

    def remove_filtered_named_policy(self, ptype: str, field_index: int, *field_values: Any) -> bool:
        """Remove the rules whose fields from `field_index` on are as given; False if there is none."""
        gone = self.get_filtered_named_policy(ptype, field_index, *field_values)
        return self._remove(ptype, gone, "remove_filtered_policy", lambda: (field_index, *field_values))

    def update_named_policy(self, ptype: str, old_rule: Fields, new_rule: Fields) -> bool:
        """Change a rule in its place; False if it is not there."""
        return self._update(ptype, [old_rule], [new_rule])

    def update_named_policies(self, ptype: str, old_rules: Sequence[Fields], new_rules: Sequence[Fields]) -> bool:
        """Change rules in their places; False, and nothing changed, if one is not there."""
        return self._update(ptype, old_rules, new_rules)

    def update_filtered_named_policies(
        self, ptype: str, new_rules: Iterable[Fields], field_index: int, *field_values: Any
    ) -> bool:
        """Put rules in the place of those whose fields are as given; False if there are none."""
        with self._lock:
            state = self._state
            old = {(ptype, tuple(rule)) for rule in self.get_filtered_named_policy(ptype, field_index, *field_values)}
            new = [(ptype, tuple(rule)) for rule in new_rules]
            if not old or not new:
                return False
            made = self._made((*(rule for rule in state.rules if rule not in old), *new), new)
            lists = [list(fields) for _, fields in new]
            if not self._saved("update_filtered_policies", ptype[0], ptype, lists, field_index, *field_values):
                return False
            self._change(made)
            return True

    # --- listing -----------------------------------------------------------------------------------------------------

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Return the rules of one type, in their order."""
        return self._state.of(ptype)

    def get_filtered_named_policy(self, ptype: str, field_index: int, *field_values: Any) -> list[list[str]]:
        """Return the rules whose fields from `field_index` on are as given; an empty value wants nothing."""
        return [rule for rule in self._state.of(ptype) if _matches(rule, field_index, field_values)]

    def has_named_policy(self, ptype: str, *params: Any) -> bool:
        """Tell whether a rule is there."""
        return (ptype, _fields(params)) in self._state.rules

    def _column(self, ptype: str, name: str, otherwise: int) -> int:
        context = next((one for one in self._state.model.contexts.values() if one.section == ptype), None)
        return context.policy.index(name) if context is not None and name in context.policy else otherwise

    def get_field_index(self, ptype: str, field: str) -> int:
        """Return the position of a field by its name; -1 if there is none."""
        return self._column(ptype, field, -1)

    def set_field_index(self, ptype: str, field: str, index: int) -> None:
        """Raise: positions follow from the names in the model."""
        raise NotOfferedError(f"the place of `{field}` in `{ptype}` ({index}) follows from the model")

    def _values(self, section: str, position: int) -> list[str]:
        rules = self._state.of(section)
        return list(dict.fromkeys(rule[position] for rule in rules if position < len(rule)))

    def _all(self, name: str, otherwise: int) -> list[str]:
        sections = [context.section for context in self._state.model.contexts.values()]
        values = (value for one in sections for value in self._values(one, self._column(one, name, otherwise)))
        return list(dict.fromkeys(values))

    def get_all_subjects(self) -> list[str]:
        """Return every subject that a policy rule names."""
        return self._all("sub", 0)

    def get_all_objects(self) -> list[str]:
        """Return every object that a policy rule names."""
        return self._all("obj", 1)

    def get_all_actions(self) -> list[str]:
        """Return every action that a policy rule names."""
        return self._all("act", 2)

    def get_all_named_subjects(self, ptype: str) -> list[str]:
        """Return every subject that a rule of one type names."""
        return self._values(ptype, self._column(ptype, "sub", 0))

    def get_all_named_objects(self, ptype: str) -> list[str]:
        """Return every object that a rule of one type names."""
        return self._values(ptype, self._column(ptype, "obj", 1))

    def get_all_named_actions(self, ptype: str) -> list[str]:
        """Return every action that a rule of one type names."""
        return self._values(ptype, self._column(ptype, "act", 2))

    def get_all_named_roles(self, ptype: str) -> list[str]:
        """Return every role that a role rule of one type names."""
        return self._values(ptype, 1)

    def get_all_roles(self) -> list[str]:
        """Return every role that a `g` rule names."""
        return self.get_all_named_roles("g")

    # --- the same for `p` and for `g`, as pycasbin spells it -----------------------------------------------------------

    def get_policy(self) -> list[list[str]]:
        """As `get_named_policy("p")`."""
        return self.get_named_policy("p")

    def get_filtered_policy(self, field_index: int, *field_values: Any) -> list[list[str]]:
        """As `get_filtered_named_policy("p", …)`."""
        return self.get_filtered_named_policy("p", field_index, *field_values)

    def has_policy(self, *params: Any) -> bool:
        """As `has_named_policy("p", …)`."""
        return self.has_named_policy("p", *params)

    def add_policy(self, *params: Any) -> bool:
        """As `add_named_policy("p", …)`."""
        return self.add_named_policy("p", *params)

    def add_policies(self, rules: Iterable[Fields]) -> bool:
        """As `add_named_policies("p", …)`."""
        return self.add_named_policies("p", rules)

    def add_policies_ex(self, rules: Iterable[Fields]) -> bool:
        """As `add_named_policies_ex("p", …)`."""
        return self.add_named_policies_ex("p", rules)

    def update_policy(self, old_rule: Fields, new_rule: Fields) -> bool:
        """As `update_named_policy("p", …)`."""
        return self.update_named_policy("p", old_rule, new_rule)

    def update_policies(self, old_rules: Sequence[Fields], new_rules: Sequence[Fields]) -> bool:
        """As `update_named_policies("p", …)`."""
        return self.update_named_policies("p", old_rules, new_rules)

    def update_filtered_policies(self, new_rules: Iterable[Fields], field_index: int, *field_values: Any) -> bool:
        """As `update_filtered_named_policies("p", …)`."""
        return self.update_filtered_named_policies("p", new_rules, field_index, *field_values)

    def remove_policy(self, *params: Any) -> bool:
        """As `remove_named_policy("p", …)`."""
        return self.remove_named_policy("p", *params)

    def remove_policies(self, rules: Iterable[Fields]) -> bool:
        """As `remove_named_policies("p", …)`."""
        return self.remove_named_policies("p", rules)

    def remove_filtered_policy(self, field_index: int, *field_values: Any) -> bool:
        """As `remove_filtered_named_policy("p", …)`."""
        return self.remove_filtered_named_policy("p", field_index, *field_values)

    # A role rule is a rule: the grouping calls differ in their default alone.
    get_named_grouping_policy = get_named_policy
    get_filtered_named_grouping_policy = get_filtered_named_policy
    has_named_grouping_policy = has_named_policy
    add_named_grouping_policy = add_named_policy
    add_named_grouping_policies = add_named_policies
    add_named_grouping_policies_ex = add_named_policies_ex
    remove_named_grouping_policy = remove_named_policy
    remove_named_grouping_policies = remove_named_policies
    remove_filtered_named_grouping_policy = remove_filtered_named_policy

    def get_grouping_policy(self) -> list[list[str]]:
        """As `get_named_grouping_policy("g")`."""
        return self.get_named_policy("g")

    def get_filtered_grouping_policy(self, field_index: int, *field_values: Any) -> list[list[str]]:
        """As `get_filtered_named_grouping_policy("g", …)`."""
        return self.get_filtered_named_policy("g", field_index, *field_values)

    def has_grouping_policy(self, *params: Any) -> bool:
        """As `has_named_grouping_policy("g", …)`."""
        return self.has_named_policy("g", *params)

    def add_grouping_policy(self, *params: Any) -> bool:
        """As `add_named_grouping_policy("g", …)`."""
        return self.add_named_policy("g", *params)

    def add_grouping_policies(self, rules: Iterable[Fields]) -> bool:
        """As `add_named_grouping_policies("g", …)`."""
        return self.add_named_policies("g", rules)

    def add_grouping_policies_ex(self, rules: Iterable[Fields]) -> bool:
        """As `add_named_grouping_policies_ex("g", …)`."""
        return self.add_named_policies_ex("g", rules)

    def remove_grouping_policy(self, *params: Any) -> bool:
        """As `remove_named_grouping_policy("g", …)`."""
        return self.remove_named_policy("g", *params)

    def remove_grouping_policies(self, rules: Iterable[Fields]) -> bool:
        """As `remove_named_grouping_policies("g", …)`."""
        return self.remove_named_policies("g", rules)

    def remove_filtered_grouping_policy(self, field_index: int, *field_values: Any) -> bool:
        """As `remove_filtered_named_grouping_policy("g", …)`."""
        return self.remove_filtered_named_policy("g", field_index, *field_values)
