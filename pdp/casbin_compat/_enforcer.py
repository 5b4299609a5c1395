"""Users, roles and permissions: pycasbin's RBAC calls. Whatever is implicit comes from the engine that decides (D-51)."""

from collections.abc import Iterator, Sequence
from typing import Any

from pdp.casbin_compat._management import Management
from pdp.casbin_compat._state import State
from pdp.engine.casbin_text import Context
from pdp.engine.functions import ANY
from pdp.errors import BadRequestError
from pdp.model.decision import Effect


class Enforcer(Management):
    """pycasbin's `Enforcer` over our engine: what the module says, and the calls about users and roles."""

    # --- direct ------------------------------------------------------------------------------------------------------

    def _links(self, section: str = "g") -> Iterator[tuple[str, str, str]]:
        """Yield name, role and domain of each role rule that counts now."""
        state, now_ms = self._state, self._now_ms()
        if state.snapshot is None:
            places = state.model.roles[section].places if section in state.model.roles else 2
            yield from ((rule[0], rule[1], rule[2] if places > 2 else "") for rule in state.of(section))  # noqa: PLR2004
            return
        graph = state.snapshot.graphs.get(section)
        for links in graph.links.values() if graph else ():
            for link in links:
                if link.window.start_ms < now_ms < link.window.end_ms:
                    yield link.name, link.target, "" if link.domain == ANY else link.domain

    def _roles_of(self, name: str, domain: str) -> list[str]:
        state = self._state
        graph = state.snapshot.graphs.get("g") if state.snapshot else None
        nodes = set(graph.nodes((name,))) if graph else {name}
        return list(dict.fromkeys(role for own, role, where in self._links() if own in nodes and where == domain))

    def get_roles_for_user(self, name: str) -> list[str]:
        """Return the roles that a rule gives to a user directly."""
        return self._roles_of(name, "")

    def get_users_for_role(self, name: str) -> list[str]:
        """Return who has a role by a rule directly."""
        return list(dict.fromkeys(own for own, role, where in self._links() if role == name and not where))

    def get_roles_for_user_in_domain(self, name: str, domain: str) -> list[str]:
        """Return the roles that a rule gives to a user directly, in a domain."""
        return self._roles_of(name, domain)

    def get_users_for_role_in_domain(self, name: str, domain: str) -> list[str]:
        """Return who has a role by a rule directly, in a domain."""
        return list(dict.fromkeys(own for own, role, where in self._links() if role == name and where == domain))

    def get_all_roles_by_domain(self, domain: str) -> list[str]:
        """Return every role that a rule names in a domain."""
        return list(dict.fromkeys(role for _, role, where in self._links() if where == domain))

    def has_role_for_user(self, name: str, role: str) -> bool:
        """Tell whether a rule gives a role to a user directly."""
        return role in self.get_roles_for_user(name)

    def add_role_for_user(self, user: str, role: str) -> bool:
        """Give a role to a user; False if they have it."""
        return self.add_grouping_policy(user, role)

    def add_role_for_user_in_domain(self, user: str, role: str, domain: str) -> bool:
        """Give a role to a user in a domain; False if they have it."""
        return self.add_grouping_policy(user, role, domain)

    def delete_role_for_user(self, user: str, role: str) -> bool:
        """Take a role from a user; False if they do not have it."""
        return self.remove_grouping_policy(user, role)

    def delete_roles_for_user(self, user: str) -> bool:
        """Take every role from a user; False if they have none."""
        return self.remove_filtered_grouping_policy(0, user)

    def delete_roles_for_user_in_domain(self, user: str, role: str, domain: str) -> bool:
        """Take a role from a user in a domain; False if they do not have it."""
        return self.remove_filtered_grouping_policy(0, user, role, domain)

    def _subject_column(self) -> int:
        return self._column("p", "sub", 0)

    def delete_user(self, user: str) -> bool:
        """Remove every rule about a user; False if there is none."""
        with self._lock:
            roles = self.remove_filtered_grouping_policy(0, user)
            return self.remove_filtered_policy(self._subject_column(), user) or roles

    def delete_role(self, role: str) -> bool:
        """Remove every rule about a role; False if there is none."""
        with self._lock:
            users = self.remove_filtered_grouping_policy(1, role)
            return self.remove_filtered_policy(self._subject_column(), role) or users

    def delete_permission(self, *permission: str) -> bool:
        """Remove a permission from everybody; False if nobody has it."""
        return self.remove_filtered_policy(1, *permission)

    def add_permission_for_user(self, user: str, *permission: str) -> bool:
        """Give a permission to a user or role; False if they have it."""
        return self.add_policy(user, *permission)

    def delete_permission_for_user(self, user: str, *permission: str) -> bool:
        """Take a permission from a user or role; False if they do not have it."""
        return self.remove_policy(user, *permission)

    def delete_permissions_for_user(self, user: str) -> bool:
        """Take every permission from a user or role; False if they have none."""
        return self.remove_filtered_policy(self._subject_column(), user)

    def get_permissions_for_user(self, user: str) -> list[list[str]]:
        """Return the rules that name a user or role."""
        return self.get_filtered_policy(self._subject_column(), user)

    def has_permission_for_user(self, user: str, *permission: str) -> bool:
        """Tell whether a rule gives a permission to a user or role directly."""
        return self.has_policy(user, *permission)

    def get_permissions_for_user_in_domain(self, user: str, domain: str) -> list[list[str]]:
        """Return the rules that name a user or role in a domain."""
        return self.get_named_permissions_for_user_in_domain("p", user, domain)

    def get_named_permissions_for_user_in_domain(self, ptype: str, user: str, domain: str) -> list[list[str]]:
        """Return the rules of one type that name a user or role in a domain."""
        subject, place = self._column(ptype, "sub", 0), self._column(ptype, "dom", 1)
        return [rule for rule in self._state.of(ptype) if rule[subject] == user and domain in {"", rule[place]}]

    # --- implicit: as the engine decides -----------------------------------------------------------------------------

    def _standing(self, state: State, name: str, domain: str) -> set[str]:
        graph = state.snapshot.graphs.get("g") if state.snapshot else None
        if graph is None:
            return {name}
        standing, _ = graph.standing((name,), domain or ANY, self._now_ms())
        return set(standing)

    def get_implicit_roles_for_user(self, name: str, domain: str = "") -> list[str]:
        """Return every role that a user has, through however many others, at any depth."""
        standing = self._standing(self._state, name, domain) - {name}
        return [role for role in self.get_all_roles() if role in standing]

    def get_implicit_permissions_for_user(
        self,
        user: str,
        domain: str = "",
        filter_policy_dom: bool = True,  # noqa: FBT001, FBT002 - pycasbin's
    ) -> list[list[str]]:
        """As `get_named_implicit_permissions_for_user("p", …)`."""
        return self.get_named_implicit_permissions_for_user("p", user, domain, filter_policy_dom)

    def get_named_implicit_permissions_for_user(
        self,
        ptype: str,
        user: str,
        domain: str = "",
        filter_policy_dom: bool = True,  # noqa: FBT001, FBT002 - pycasbin's
    ) -> list[list[str]]:
        """Return the allow rules that hold for a user through any of their roles, and that no deny row takes back."""
        state = self._state
        standing = self._standing(state, user, domain)
        subject, place = self._column(ptype, "sub", 0), self._column(ptype, "dom", -1)
        return [
            rule
            for rule in state.of(ptype)
            if rule[subject] in standing
            and (not domain or not filter_policy_dom or place < 0 or rule[place] in {domain, ANY})
            and self._grants(state, ptype, rule, user, domain)
        ]

    def _grants(self, state: State, ptype: str, rule: Sequence[str], user: str, domain: str = "") -> bool:
        """Tell whether a rule allows, and the engine does not deny what it says: D-51 counts no rule that is overruled."""
        context = next(one for one in state.model.contexts.values() if one.section == ptype)
        fields = dict(zip(context.policy, rule, strict=True))
        if fields.get("eft", "allow") != "allow":
            return False
        question = _question(context, fields, user, domain)
        if question is None or state.snapshot is None or state.missing:
            return True
        outcome = self._evaluated(state, context, question)
        return outcome.effect is Effect.ALLOW or not outcome.determining

    def _users(self, state: State) -> list[str]:
        """Return every name that rules know and that is no role."""
        subjects = (rule[self._subject_column()] for rule in state.of("p"))
        names = dict.fromkeys((*(rule[0] for rule in state.of("g")), *subjects))
        roles = {rule[1] for rule in state.of("g")}
        return [name for name in names if name not in roles]

    def get_implicit_users_for_permission(self, *permission: Any) -> list[str]:
        """Return every known user who is allowed something; roles are no users."""
        state = self._state
        return [user for user in self._users(state) if self._decided(state, (user, *permission))]

    def get_implicit_users_for_resource(self, resource: str) -> list[list[str]]:
        """Return, for each rule about a resource and each user who has it through any role, the rule with that user."""
        return self._implicit_users(resource, "")

    def get_implicit_users_for_resource_by_domain(self, resource: str, domain: str) -> list[list[str]]:
        """As `get_implicit_users_for_resource`, in one domain."""
        return self._implicit_users(resource, domain)

    def _implicit_users(self, resource: str, domain: str) -> list[list[str]]:
        state = self._state
        subject, thing = self._subject_column(), self._column("p", "obj", 1)
        place = self._column("p", "dom", -1)
        users = {user: self._standing(state, user, domain) for user in self._users(state)}
        found = {
            (*rule[:subject], user, *rule[subject + 1 :]): None
            for rule in state.of("p")
            if rule[thing] == resource and (not domain or place < 0 or rule[place] in {domain, ANY})
            for user, standing in users.items()
            if rule[subject] in standing and self._grants(state, "p", rule, user, domain)
        }
        return [list(rule) for rule in found]

    def get_allowed_object_conditions(self, user: str, action: str, prefix: str) -> list[str] | None:
        """Return the objects, without a prefix, on which a user may do something; None if there are none, or others."""
        thing, act = self._column("p", "obj", 1), self._column("p", "act", 2)
        objects = [rule[thing] for rule in self.get_implicit_permissions_for_user(user) if rule[act] == action]
        if not objects or any(not one.startswith(prefix) for one in objects):
            return None
        return [one.removeprefix(prefix) for one in objects]

    # --- leaving -----------------------------------------------------------------------------------------------------

    def pack_files(self) -> dict[str, bytes]:
        """Return this policy as the files of a pack, by path; what `pdp policy apply` takes.

        Raises:
            BadRequestError: the enforcer is local: what its policy means depends on this process.
        """
        state = self._state
        if state.local or state.missing:
            raise BadRequestError("a local policy (add_function, or requests that hold objects) is never published")
        from pdp.service.casbin_import import pack_of  # noqa: PLC0415 - only who publishes needs it

        return pack_of(state.full_text, state.rows).files


def _question(context: Context, fields: dict[str, str], user: str, domain: str) -> tuple[str, ...] | None:
    """Return the request that a rule answers if its patterns are taken for names; None if it does not say everything."""
    known = {**fields, "dom": domain or fields.get("dom", "")}
    values = [user if at == 0 else known.get(name, "") for at, name in enumerate(context.request)]
    return None if "" in values else tuple(values)
