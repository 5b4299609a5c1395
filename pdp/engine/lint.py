"""What is probably not meant: findings about a policy that compiles (POLICY.md section 4, docs/lint.md). All are warnings.

Each check is exact about what it says: a rule is shadowed if another one covers every question that it could decide; a role
is out of reach if no name leads to it. What cannot be said is not reported: usage only with a log, members that are no
assets only with an inventory.

A finding that is meant is answered where it stands, by a comment in its file: `# lint: PC603 because the pack names nobody`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pdp.engine.casbin_text import OPEN, Row
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.conditions import Condition
from pdp.engine.findings import Finding, finding, in_order
from pdp.engine.functions import ANY, action_alternatives, action_match
from pdp.engine.obligations import merge
from pdp.engine.plan import ROLE
from pdp.engine.tables import is_pattern
from pdp.engine.valuations import valuations
from pdp.errors import BadNameError
from pdp.model.attributes import NO_ATTRIBUTES, instant_ms
from pdp.model.names import NO_SEGMENT, ResourcePattern

_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")
_BEYOND: Final = re.compile(r"\b(?!size\b)\w+\s*\(|[-+*/%]")
"""Functions and arithmetic, whose turning points are not among a condition's constants."""
RISKY_VERBS: Final = ("download", "promote", "vend_credentials")
_JUSTIFIED: Final = re.compile(r"^\s*#\s*lint:\s*(PC6\d\d)\s+because\s+\S", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One access that a rule determined, as the decision log has it."""

    rule: str
    action: str
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a lint may know beside the policy: the time, the inventory (None: unknown), and what rules were used for."""

    now_ms: int
    assets: Mapping[str, str] | None = None
    """Name and segment (or empty) of every asset."""
    uses: Sequence[Use] | None = None


def lint(snapshot: Snapshot, around: Surroundings) -> tuple[Finding, ...]:
    """Return everything about a policy that is probably not meant, in the order of its places."""
    work = Reading(snapshot, around)
    return in_order(item for check in _CHECKS for item in check(work))


def justified(texts: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return file and code of each finding that a comment in its file answers."""
    return frozenset((file, code) for file, text in texts.items() for code in _JUSTIFIED.findall(text))


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule, read as a grant: who, what, on which resources, where."""

    rule: Rule
    role: str
    actions: str
    resources: str
    environment: str

    @property
    def condition(self) -> str:
        """The text of its condition, or empty."""
        return self.rule.condition.text if self.rule.condition else ""

    def problem(self, code: str, message: str) -> Finding:
        """Return a finding at this row."""
        return self.rule.row.problem(code, message)


class Reading:
    """A policy as the checks read it: its grants, what each name stands for, what each pattern of actions names."""

    def __init__(self, snapshot: Snapshot, around: Surroundings) -> None:
        self.snapshot = snapshot
        self.around = around
        self.context = snapshot.contexts[""]
        self._actions: dict[str, frozenset[str]] = {}

    @cached_property
    def grants(self) -> tuple[Grant, ...]:
        """The rules of the first context, where it has the columns of a grant."""
        at = dict(_columns(self.context))
        if not {ROLE, "actionMatch", "resourceMatch"} <= at.keys():
            return ()
        return tuple(
            Grant(
                rule,
                rule.row.fields[at[ROLE]],
                rule.row.fields[at["actionMatch"]],
                rule.row.fields[at["resourceMatch"]],
                rule.row.fields[at["envMatch"]] if "envMatch" in at else ANY,
            )
            for rule in self.context.rules
        )

    @cached_property
    def included(self) -> Mapping[str, frozenset[str]]:
        """For each name, all that it stands for at any time in any domain, itself included."""
        subject = self.context.plan.subject
        section = subject.terms[0].section if subject is not None else ""
        graph = self.snapshot.graphs.get(section)
        found: dict[str, set[str]] = defaultdict(set)
        for reaches in graph.reaches.values() if graph else ():
            for name, reach in reaches.items():
                found[name].update((*reach.always, *(target for target, _ in reach.timed)))
        return {name: frozenset((*targets, name)) for name, targets in found.items()}

    def actions_of(self, pattern: str) -> frozenset[str]:
        """Return the actions of the vocabulary that a pattern names."""
        if pattern not in self._actions:
            known = self.snapshot.vocabulary.actions()
            self._actions[pattern] = frozenset(action for action in known if action_match(action, pattern))
        return self._actions[pattern]


def _columns(context: CompiledContext) -> Iterator[tuple[str, int]]:
    subject = context.plan.subject
    if subject is not None:
        yield ROLE, subject.position
    for column in context.plan.columns:
        yield from ((term.kind, column.position) for term in column.terms if term.kind != ROLE)


# --- rules beside each other -----------------------------------------------------------------------------------------


def _pairs(work: Reading) -> Iterator[Finding]:
    """Find rules that never decide anything because of another one, and pairs that say the opposite."""
    by_role: dict[str, list[Grant]] = defaultdict(list)
    for grant in work.grants:
        by_role[grant.role].append(grant)
    for grants in by_role.values():
        for one in grants:
            for other in grants:
                if one is not other and one.rule.row.fields != other.rule.row.fields:
                    yield from _pair(one, other, work)


def _pair(one: Grant, other: Grant, work: Reading) -> Iterator[Finding]:
    """Find what is wrong with `one` because of `other`."""
    same_place = one.resources == other.resources and one.condition == other.condition
    meet = _environments_meet(one, other) and work.actions_of(one.actions) & work.actions_of(other.actions)
    if one.rule.allow and not other.rule.allow and same_place and meet:
        yield one.problem("PC602", f"{other.rule.row.id} denies what this grants: `{min(meet)}` on `{one.resources}`")
    elif _covers(other, one, work) and not (other.rule.allow and not one.rule.allow):
        adds = one.rule.allow and other.rule.allow and not _adds_nothing(one.rule, other.rule)
        twin = _covers(one, other, work) and (one.rule.row.file, one.rule.row.line) < (
            other.rule.row.file,
            other.rule.row.line,
        )
        if not adds and not twin:
            why = "grants all of this" if other.rule.allow else "denies all of this"
            yield one.problem("PC601", f"this rule never decides anything: {other.rule.row.id} {why}")


def _environments_meet(one: Grant, other: Grant) -> bool:
    return ANY in (one.environment, other.environment) or one.environment == other.environment


def _covers(wide: Grant, narrow: Grant, work: Reading) -> bool:
    """Tell whether every question that `narrow` matches is one that `wide` matches too."""
    return (
        wide.condition in ("", narrow.condition)
        and wide.environment in (ANY, narrow.environment)
        and work.actions_of(narrow.actions) <= work.actions_of(wide.actions)
        and _contains(wide.resources, narrow.resources)
    )


def _contains(wide: str, narrow: str) -> bool:
    """Tell whether every resource that `narrow` names is one that `wide` names."""
    if wide == narrow:
        return True
    try:
        one, other = ResourcePattern.parse(wide), ResourcePattern.parse(narrow)
    except BadNameError:
        return False  # a collection: who its members are is the inventory's
    if one.type != other.type or one.version not in ("", other.version):
        return False
    names, wanted = list(other.segments), list(one.segments)
    if wanted[-1] == "**":
        wanted.pop()
        if len(names) <= len(wanted):
            return False
        names = names[: len(wanted)]
    elif len(names) != len(wanted) or "**" in names:
        return False
    return all(want in ("*", name) for want, name in zip(wanted, names, strict=True))


def _adds_nothing(rule: Rule, other: Rule) -> bool:
    return merge((*rule.obligations, *other.obligations)) == other.obligations


# --- rules by themselves ---------------------------------------------------------------------------------------------


def _unreachable(work: Reading) -> Iterator[Finding]:
    """Find rules of roles that nobody holds: no principal, group or workload leads to them."""
    held = {role for name, roles in work.included.items() if not name.startswith("role:") for role in roles}
    told: set[str] = set()
    for grant in work.grants:
        if grant.role.startswith("role:") and grant.role not in held | told:
            told.add(grant.role)
            yield grant.problem("PC603", f"no assignment reaches `{grant.role}`; none of its rules can decide anything")


def _too_wide(work: Reading) -> Iterator[Finding]:
    """Find grants that name more than anything they were used for."""
    if work.around.uses is None:
        return
    used: dict[str, list[Use]] = defaultdict(list)
    for use in work.around.uses:
        used[use.rule].append(use)
    for grant in work.grants:
        if not grant.rule.allow:
            continue
        uses = used.get(grant.rule.row.id, [])
        if not uses:
            yield grant.problem("PC604", "nothing in the log was ever granted by this rule")
            continue
        idle = work.actions_of(grant.actions) - {use.action for use in uses}
        narrow = narrowest(sorted({use.resource for use in uses}))
        wider = is_pattern(grant.resources) and narrow != grant.resources and _contains(grant.resources, narrow)
        if idle or wider:
            unused = f"never used for {_listed(idle)}; " if idle else ""
            yield grant.problem("PC604", f"wider than its use: {unused}all its uses are on `{narrow}`")


def narrowest(resources: Sequence[str]) -> str:
    """Return a pattern that covers all resources, and little else."""
    split = [name.partition("@")[0].split("/") for name in resources]
    if len(split) == 1:
        return "/".join(split[0])
    common: list[str] = []
    for words in zip(*split, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    if all(len(words) == len(common) for words in split):
        return "/".join(common)
    flat = all(len(words) == len(common) + 1 for words in split)
    return "/".join((*common, "*" if flat else "**"))


def _listed(words: Collection[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


def _risky(work: Reading) -> Iterator[Finding]:
    """Find grants of verbs that take something out of the house, by wildcard, in prod, without a condition."""
    for grant in work.grants:
        if not grant.rule.allow or grant.condition or grant.environment not in ("prod", ANY):
            continue
        verbs = sorted(action for action in work.actions_of(grant.actions) if action.partition(".")[2] in RISKY_VERBS)
        wild = any(action.endswith(ANY) for action in action_alternatives(grant.actions)) or is_pattern(grant.resources)
        if verbs and wild:
            yield grant.problem("PC605", f"{_listed(verbs)} by wildcard in prod, without a condition")


def _approve_and_promote(work: Reading) -> Iterator[Finding]:
    """Find roles that may approve and promote the same kind of thing, by themselves or by what they include."""
    verbs: dict[str, dict[str, Row]] = defaultdict(dict)
    for grant in work.grants:
        for action in work.actions_of(grant.actions) if grant.rule.allow else ():
            verbs[grant.role].setdefault(action, grant.rule.row)
    for role in sorted({*verbs, *(name for name in work.included if name.startswith("role:"))}):
        inherited = {
            action: row for each in sorted(work.included.get(role, {role})) for action, row in verbs[each].items()
        }
        for kind in work.snapshot.vocabulary.types:
            approving, promoting = inherited.get(f"{kind}.approve"), inherited.get(f"{kind}.promote")
            if approving is not None and promoting is not None:
                message = f"`{role}` may approve ({approving.id}) and promote a {kind}: nobody else need look at it"
                yield promoting.problem("PC606", message)


def _constant(work: Reading) -> Iterator[Finding]:
    """Find conditions that say the same for every value of what they read."""
    told: dict[str, str] = {}
    for context in work.snapshot.contexts.values():
        for rule in context.rules:
            if rule.condition is None:
                continue
            text = rule.condition.text
            if text not in told:
                told[text] = _always(rule.condition, work.around.now_ms)
            if told[text]:
                message = f"the condition `{text}` is {told[text]} for every value that was tried"
                yield rule.row.problem("PC609", message, context.plan.when or 0)


def _always(condition: Condition, now_ms: int) -> str:
    """Return what a condition says whatever it reads, or nothing if that changes, or values tried would not show it."""
    if condition.reads_now or _BEYOND.search(_QUOTED.sub("''", condition.text)):
        return ""
    found = {
        condition.holds(attributes, now_ms)
        for attributes in valuations((condition,), NO_ATTRIBUTES)
        if all(name in attributes for name, _ in condition.reads)
    }
    return "true" if found == {True} else "false" if found == {False} else ""


# --- names -----------------------------------------------------------------------------------------------------------


def _empty_segments(work: Reading) -> Iterator[Finding]:
    """Find segments that rules name and nothing is in."""
    context = work.snapshot.contexts.get("2")
    graph = work.snapshot.graphs.get("g3")
    if context is None or graph is None:
        return
    filled = {NO_SEGMENT, *(work.around.assets or {}).values()}
    filled |= {link.target for links in graph.links.values() for link in links}
    told: set[str] = set()
    for rule in context.rules:
        for position, name in enumerate(rule.row.fields):
            if name.startswith("segment:") and name not in filled | told:
                told.add(name)
                yield rule.row.problem("PC607", f"nothing is in `{name}`", position)


def _uncovered(work: Reading) -> Iterator[Finding]:
    """Find types, and assets of the inventory, that no grant names."""
    if not work.grants:
        return
    allowed = {kind for grant in work.grants if grant.rule.allow for kind in _types(grant, work)}
    for kind in sorted(set(work.snapshot.vocabulary.types) - allowed):
        yield finding("PC608", f"no rule grants anything on a {kind}", file="vocabulary.yaml")
    patterns = {grant.resources for grant in work.grants if grant.rule.allow}
    graph = work.snapshot.graphs.get("g2")
    for name in sorted(work.around.assets or {}):
        groups = graph.standing((name,), ANY, work.around.now_ms)[0] if graph else set()
        if not any(_contains(pattern, name) or pattern in groups for pattern in patterns):
            yield finding("PC608", f"no rule grants anything on `{name}`", file="assets.yaml")


def _types(grant: Grant, work: Reading) -> set[str]:
    if "/" in grant.resources:
        return {grant.resources.partition("/")[0]}
    return {action.partition(".")[0] for action in work.actions_of(grant.actions)}


def _expired(work: Reading) -> Iterator[Finding]:
    """Find assignments whose end has passed."""
    for row in work.snapshot.rows:
        definition = work.snapshot.model.roles.get(row.section)
        if definition is None or len(row.fields) == definition.places or row.fields[-1] == OPEN:
            continue
        if instant_ms(row.fields[-1]) <= work.around.now_ms:
            yield row.problem("PC610", f"ended at {row.fields[-1]}: this row does nothing", len(row.fields) - 1)


def _no_assets(work: Reading) -> Iterator[Finding]:
    """Find members of collections that are no assets, where the inventory is known."""
    if not work.around.assets:
        return
    bases = {name.partition("@")[0] for name in work.around.assets}
    for row in work.snapshot.rows:
        member = row.fields[0] if row.section == "g2" else ""
        if (
            member
            and not is_pattern(member)
            and "/" in member
            and member not in work.around.assets
            and member not in bases
        ):
            yield row.problem("PC611", f"`{member}` is a member of `{row.fields[1]}` and not in the inventory", 0)


_CHECKS: Final[tuple[Callable[[Reading], Iterable[Finding]], ...]] = (
    _pairs,
    _unreachable,
    _too_wide,
    _risky,
    _approve_and_promote,
    _empty_segments,
    _uncovered,
    _constant,
    _expired,
    _no_assets,
)
