"""Worlds (a model, a vocabulary, rows) and the questions put to them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from hypothesis import strategies as st

from pdp.engine.casbin_text import Model, Row, parse_model
from pdp.engine.evaluate import EngineRequest
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.vocabulary import Vocabulary
from tests.spec.generators.questions import ask_about

NOW_MS = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
INSTANTS = (
    "2025-01-01T00:00:00Z",
    "2026-05-31T23:59:59Z",
    "2026-06-01T00:00:00Z",
    "2026-06-01T00:00:01Z",
    "2027-01-01T00:00:00Z",
)

VOCABULARY_TEXT = """
types:
  dataset: {verbs: [read, list, write], segmented: true}
  model: {verbs: [read, download, promote], versioned: [promote], segmented: true}
  data: {verbs: [read]}
attributes:
  subject.id: {type: string}
  resource.approvals: {type: list}
  resource.signed: {type: bool}
  resource.since: {type: timestamp}
  request.purpose: {type: string, asserted_by: [caller]}
  signal.level: {type: int}
"""

_HEAD = """
[request_definition]
r = sub, act, obj, env
r2 = src, act, dst
[policy_definition]
p = role, act, obj, env, when, then, eft
p2 = src, act, dst, when, eft
[role_definition]
g = _, _, _, (_, _)
g2 = _, _
g3 = _, _
[policy_effect]
e = {effect}
e2 = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m2 = g3(r2.src, p2.src) && actionMatch(r2.act, p2.act) && g3(r2.dst, p2.dst) && when(p2.when)
m = {matcher}
"""
_EFFECTS = ("some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))")
_OBJECT = "(resourceMatch(r.obj, p.obj) || g2(r.obj, p.obj))"
_MATCHERS = (
    f"g(r.sub, p.role, r.env) && actionMatch(r.act, p.act) && {_OBJECT} && envMatch(r.env, p.env) && when(p.when)",
    f"when(p.when) && envMatch(r.env, p.env) && {_OBJECT} && actionMatch(r.act, p.act) && g(r.sub, p.role, r.env)",
    "g(r.sub, p.role, r.env) && (g2(r.obj, p.obj) || resourceMatch(r.obj, p.obj)) && when(p.when)",
    "g(r.sub, p.role, r.env) && r.act == p.act && g2(r.obj, p.obj) && when(p.when)",
    (
        "(r.sub == p.role || g(r.sub, p.role, r.env)) && p.obj == r.obj"
        " && (r.env == p.env || envMatch(r.env, p.env)) && when(p.when)"
    ),
    f"{_OBJECT} && when(p.when)",
    "envMatch(r.env, p.env) and (g2(r.obj, p.obj) or p.obj == r.obj) and when(p.when)",
    # Several branches, guards, and conditions within the matcher: what the index alone does not answer.
    (
        f"g(r.sub, p.role, r.env) && actionMatch(r.act, p.act) && {_OBJECT} && envMatch(r.env, p.env) && when(p.when)"
        ' || r.sub == "user:u1" && r.act == p.act && when(p.when)'
    ),
    f"g(r.sub, p.role, r.env) && {_OBJECT} && (when(p.when) || envMatch(r.env, p.env) && r.act != p.act)",
    f"r.sub != p.role && actionMatch(r.act, p.act) && {_OBJECT} && !when(p.when)",
    f'r.env in ("dev", "prod") && g(r.sub, p.role, r.env) && {_OBJECT} && when(p.when)',
)


def read_model(text: str) -> Model:
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    return model


def _vocabulary() -> Vocabulary:
    vocabulary, found = parse_vocabulary(VOCABULARY_TEXT, file="vocabulary.yaml")
    assert vocabulary is not None, found
    return vocabulary


VOCABULARY = _vocabulary()
TEXTS = tuple(_HEAD.format(effect=effect, matcher=matcher) for effect in _EFFECTS for matcher in _MATCHERS)
MODELS = tuple(map(read_model, TEXTS))

DOMAINS = st.sampled_from(("dev", "prod", "*"))
USERS = st.sampled_from(
    ("user:u1", "user:u2@x", "user:u2", "agent:a1", "workload:spiffe://d/a/b", "workload:spiffe://d/a/b/c")
)
GROUPS = st.sampled_from(("group:g1", "group:g2"))
ROLES = tuple(f"role:r{number}" for number in range(1, 6))
SEGMENTS = tuple(f"segment:s{number}" for number in range(1, 5))
COLLECTIONS = tuple(f"collection:c{number}" for number in range(1, 5))
WORKLOAD_PATTERNS = st.sampled_from(
    ("workload:spiffe://d/**", "workload:spiffe://d/a/**", "workload:spiffe://d/a/b/**")
)
ACTION_PATTERNS = st.sampled_from(
    (
        "dataset.read",
        "dataset.read|list",
        "dataset.list|write|list",
        "dataset.*",
        "*",
        "model.promote",
        "model.*",
        "data.read|read",
    )
)
TYPES = st.sampled_from(("dataset", "dataset", "dataset", "model", "data"))
_WORDS = st.sampled_from(("a", "b"))
_VERSIONS = st.sampled_from(("", "", "@1", "@2"))
CONDITIONS = st.sampled_from(
    (
        "",
        "",
        "",
        "request.purpose == 'x'",
        "request.purpose != 'x' || resource.signed",
        "size(resource.approvals) >= 2",
        "subject.id in resource.approvals",
        "1 / signal.level == 1",
        "now < timestamp('2026-06-01T00:00:00Z')",
        "now > resource.since",
        "resource.signed",
    )
)
OBLIGATIONS = st.sampled_from(("", "", "recheck_after=10s", "recheck_after=5s; max_tokens=7", "deny_columns=a,b"))
EFFECTS = st.sampled_from(("allow", "allow", "deny"))


@st.composite
def resources(draw: st.DrawFn) -> str:
    segments = draw(st.lists(_WORDS, min_size=1, max_size=4))
    return f"{draw(TYPES)}/{'/'.join(segments)}{draw(_VERSIONS)}"


@st.composite
def patterns(draw: st.DrawFn) -> str:
    segments = draw(st.lists(st.sampled_from(("a", "b", "*")), min_size=1, max_size=4))
    if draw(st.booleans()):
        segments[-1] = "**"
    return f"{draw(TYPES)}/{'/'.join(segments)}{draw(_VERSIONS)}"


@st.composite
def times(draw: st.DrawFn) -> tuple[str, ...]:
    if draw(st.booleans()):
        return ()
    bounds = sorted(draw(st.tuples(st.sampled_from(INSTANTS), st.sampled_from(INSTANTS))))
    start, end = (bound if draw(st.booleans()) else "_" for bound in bounds)
    return ("_", end) if start == end else (start, end)


def _above(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[str, str]:
    """Draw a link from a name to a later one, so that no circle comes about."""
    low = draw(st.integers(0, len(names) - 2))
    return names[low], names[draw(st.integers(low + 1, len(names) - 1))]


@st.composite
def role_rows(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    if draw(st.booleans()):
        name, target = _above(draw, ROLES)
    else:
        name, target = draw(USERS | GROUPS | WORKLOAD_PATTERNS), draw(st.sampled_from(ROLES))
    return "g", (name, target, draw(DOMAINS), *draw(times()))


@st.composite
def member_rows(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    section, names = draw(st.sampled_from((("g2", COLLECTIONS), ("g3", SEGMENTS))))
    if draw(st.booleans()):
        return section, _above(draw, names)
    left = draw(patterns() | resources() | (WORKLOAD_PATTERNS | USERS if section == "g3" else patterns()))
    return section, (left, draw(st.sampled_from(names)))


@st.composite
def grant_rows(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    role = draw(st.sampled_from(ROLES) | USERS | GROUPS)
    target = draw(patterns() | patterns() | resources() | st.sampled_from(COLLECTIONS))
    effect = draw(EFFECTS)
    duty = draw(OBLIGATIONS) if effect == "allow" else ""
    return "p", (role, draw(ACTION_PATTERNS), target, draw(DOMAINS), draw(CONDITIONS), duty, effect)


@st.composite
def segmentation_rows(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    source = draw(st.sampled_from((*SEGMENTS, "segment:none")) | USERS)
    target = draw(st.sampled_from((*SEGMENTS, "segment:none")) | resources())
    return "p2", (source, draw(ACTION_PATTERNS), target, draw(CONDITIONS), draw(EFFECTS))


def numbered(rows: list[tuple[str, tuple[str, ...]]]) -> tuple[Row, ...]:
    return tuple(Row(section, fields, "rows.csv", line) for line, (section, fields) in enumerate(rows, start=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedWorld:
    model: Model
    rows: tuple[Row, ...]
    questions: tuple[EngineRequest, ...]

    @property
    def text(self) -> str:
        """The text of the model."""
        return next(text for text, model in zip(TEXTS, MODELS, strict=True) if model is self.model)


@st.composite
def worlds(draw: st.DrawFn) -> GeneratedWorld:
    kinds = [grant_rows(), segmentation_rows(), role_rows(), member_rows()]
    # Whole kinds of rows are left out on purpose; one grant stays, since a policy without any is refused.
    kept = [grant_rows(), *(kind for kind in kinds if draw(st.integers(0, 5)))]
    rows = numbered([draw(grant_rows()), *draw(st.lists(st.one_of(kept), min_size=8, max_size=20))])
    rng = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - questions, not keys
    return GeneratedWorld(
        model=draw(st.sampled_from(MODELS)), rows=rows, questions=tuple(ask_about(rows, rng) for _ in range(8))
    )
