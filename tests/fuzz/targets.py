"""What must hold for any bytes: one function for each parser. It returns, or raises; whatever it raises is a defect.

Never a traceback, never half a policy, and where a policy comes out, the index answers what the specification answers and
what is printed is read as it was.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from json import loads
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pdp.audit.chain import Verdict, scan
from pdp.audit.checkpoint import BadNote, VerifierKey, notes_in, opened_note
from pdp.audit.proof import Proof, Unproven
from pdp.audit.verify import verify
from pdp.engine import reference
from pdp.engine.casbin_lint import lint_files
from pdp.engine.casbin_text import Model, Row, parse_model, parse_rows, print_row
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.conditions import ConditionError, Conditions
from pdp.engine.evaluate import evaluate
from pdp.engine.expression import ExpressionError, parse
from pdp.engine.findings import Finding, errors
from pdp.engine.format import format_rows
from pdp.engine.obligations import ObligationError, merge, parse_then
from pdp.engine.pack import load_pack
from pdp.engine.question import EngineRequest
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.vocabulary import Vocabulary
from tests.fuzz.doors import body, envelope, target, token

POLICIES: Final = Path(__file__).parents[2] / "policies"
NO_WORDS: Final = Vocabulary(types={}, attributes={})
NOW_MS: Final = 1_780_272_000_000
_ROWS: Final = "p, a, /a, read, r.sub == p.sub, allow\np, b, /a/*, write, r.act != p.act, deny\ng, u, a\ng2, /a/b, /a\n"
_HEAD: Final = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, rule, eft
[role_definition]
g = _, _
g2 = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = """
_VALUES: Final[tuple[tuple[Any, ...], ...]] = (
    ("u", "/a", "read"),
    ("b", "/a/b", "write"),
    ({"name": "a", "age": 20}, "/a/b", 5),
)


def _places(found: Iterable[Finding], text: str) -> None:
    last = text.count("\n") + 1
    for item in found:
        assert 1 <= item.line <= last, item
        assert item.column >= 1, item


def _agree(model: Model, rows: tuple[Row, ...], values: Iterable[tuple[Any, ...]]) -> None:
    snapshot = compile_policy(model, NO_WORDS, rows)
    if not isinstance(snapshot, Snapshot):
        assert errors(snapshot)
        return
    for context in model.contexts:
        for each in values:
            if len(each) != len(model.contexts[context].request):
                continue
            question = EngineRequest(context=context, values=each, memberships={}, attributes={})
            outcome = evaluate(snapshot, question, NOW_MS)
            assert (outcome.effect, outcome.reason) == reference.evaluate(model, NO_WORDS, rows, question, NOW_MS)


def model(data: bytes) -> None:
    """Read `model.conf`, and rows behind a zero byte; ask what the rows themselves name."""
    head, _, tail = data.partition(b"\0")
    text, csv = head.decode(errors="surrogateescape"), tail.decode(errors="surrogateescape")
    parsed, found = parse_model(text, file="model.conf")
    _places(found, text)
    if parsed is None:
        assert errors(found)
        return
    rows, found = parse_rows(csv, file="policy.csv", model=parsed)
    _places(found, csv)
    if parsed.plain and not errors(found):
        _agree(parsed, rows, [row.fields[:3] for row in rows[:4]] or [("a", "b", "c")])
    lint_files(head, tail, model_file="model.conf", policy_file="policy.csv")


def matcher(data: bytes) -> None:
    """Read a matcher; where it compiles, ask the index and the specification."""
    text = data.decode(errors="surrogateescape")
    try:
        parse(text)
    except ExpressionError as error:
        assert 0 <= error.at <= len(text), error.message  # noqa: PT017 - the place of the error is what is tested
    parsed, found = parse_model(f"{_HEAD}{text}\n", file="model.conf")
    if parsed is None:
        assert errors(found)
    elif parsed.plain and "" in parsed.contexts:
        rows, found = parse_rows(_ROWS, file="policy.csv", model=parsed)
        if not errors(found):
            _agree(parsed, rows, _VALUES)


def _shipped(name: str) -> bytes:
    return (POLICIES / name).read_bytes()


_OWN_MODEL: Final = parse_model(_shipped("model.conf").decode(), file="model.conf")[0]
_OWN_WORDS: Final = parse_vocabulary(_shipped("vocabulary.yaml").decode(), file="vocabulary.yaml")[0]


def rows(data: bytes) -> None:
    """Read rows of our own model: what is printed is read as it was, and formatting loses nothing."""
    text = data.decode(errors="surrogateescape")
    assert _OWN_MODEL is not None
    assert _OWN_WORDS is not None
    read, found = parse_rows(text, file="rows.csv", model=_OWN_MODEL)
    _places(found, text)
    again, more = parse_rows("\n".join(map(print_row, read)), file="rows.csv", model=_OWN_MODEL)
    assert not errors(more)
    assert [row.fields for row in again] == [row.fields for row in read]
    if not errors(found):
        formatted, none = parse_rows(
            format_rows(text, file="rows.csv", model=_OWN_MODEL), file="rows.csv", model=_OWN_MODEL
        )
        assert not errors(none)
        assert formatted == read
    compiled = compile_policy(_OWN_MODEL, _OWN_WORDS, read)
    assert isinstance(compiled, Snapshot) or errors(compiled)


_FILES: Final = ("vocabulary.yaml", "assets.yaml", "tests/t.yaml")


def pack(data: bytes) -> None:
    """Read one of a pack's YAML files, which the first byte chooses."""
    name = _FILES[data[0] % len(_FILES)] if data else _FILES[0]
    files = {file: _shipped(file) for file in ("model.conf", "vocabulary.yaml")}
    found = load_pack({**files, name: data[1:]})
    assert not isinstance(found, tuple) or errors(found)


def columns(data: bytes) -> None:
    """Read a condition and obligations, parted by a zero byte: the two texts that a column may hold."""
    condition, _, duties = data.decode(errors="surrogateescape").partition("\0")
    try:
        assert Conditions(_OWN_WORDS or NO_WORDS).compiled(condition).holds({}, NOW_MS) in {True, False, None}
    except ConditionError as error:
        assert error.problems  # noqa: PT017 - an error without a reason would tell nobody anything
    try:
        found = parse_then(duties)
        assert parse_then("; ".join(f"{one.name}={one.value}" for one in found)) == found
        assert merge((*found, *found)) == found
    except ObligationError as error:
        assert 0 <= error.at <= len(duties), error.message  # noqa: PT017 - the place of the error is what is tested


def audit(data: bytes) -> None:
    """Read a segment of a decision log, and as many of its signed notes and proofs as there are: verdicts, and no crash."""
    report = verify([("fuzz", data)])
    assert report.verdict is not Verdict.OK or report.records > 0
    tail = scan(data)
    assert tail is None or tail.valid_bytes <= len(data)
    text = data.decode(errors="replace")
    with suppress(BadNote):
        VerifierKey.parse(text)
    for note in notes_in(text):
        with suppress(BadNote):
            opened_note(note, [])
    with suppress(Unproven, ValueError, RecursionError):
        Proof.from_json(loads(text)).check(())


TARGETS: Final = MappingProxyType[str, Callable[[bytes], None]](
    {"model": model, "matcher": matcher, "rows": rows, "pack": pack, "columns": columns, "audit": audit}
    | {"token": token, "envelope": envelope, "body": body, "target": target}
)
