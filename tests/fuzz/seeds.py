"""What the fuzzer starts from: the shipped pack, the documented examples, and the words of each grammar."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from pdp.audit.chain import frames
from pdp.audit.proof import Proof
from pdp.audit.verify import Reading
from pdp.trust.entry import EMPTY
from tests.fuzz.targets import POLICIES
from tests.support.chains import signer, written
from tests.support.logs import Authority
from tests.support.targets import corpus
from tests.support.tokens import good_claims, good_header, good_token
from tests.support.tokens import signer as issuer

EXAMPLES = Path(__file__).parents[1] / "spec" / "casbin_examples"
WORDS = (
    "r.sub", "p.sub", "r.obj", "p.obj", "r.act", "p.act", "p.rule", "p.eft", "==", "!=", "<=", "&&", "||", "!", "in", "not in",
    "(", ")", "[", "]", ",", "'a'", '\\"a\\"', "g(", "g2(", "keyMatch(", "keyMatch2(", "globMatch(", "regexMatch(", "ipMatch(",
    "timeMatch(", "eval(p.rule)", "when(p.when)", "true", "False", "1.5", "and", "or", "allow", "deny", "[matchers]",
    "[policy_effect]", "some(where (p.eft == allow))", "priority(p.eft) || deny", "resource.signature_verified", "size(",
    "recheck_after=10s", "mask_columns=", "types:", "verbs:", "attributes:", "asserted_by:", "\\xef\\xbb\\xbf", "\\xe2\\x80\\x8b",
)  # fmt: skip


def _chain() -> Iterator[bytes]:
    key = signer()
    with TemporaryDirectory(prefix="portcullis-fuzz-") as name:
        written(Path(name), key, segments=2, each=3)
        segments = [path.read_bytes() for path in sorted(Path(name).glob("*.log"))]
    yield from segments
    reading = Reading()
    for data in segments:
        reading.segment("seed", data)
    yield reading.note.encode()
    yield str(key.key).encode()
    content = next(frames(segments[0]))[1]
    yield json.dumps(Proof.made(reading, content, 1).to_json()).encode()


def _bodies() -> Iterator[bytes]:
    chat = {
        "model": "m",
        "messages": [{"role": "user", "content": "\u20ac\ud83d\ude00"}],
        "max_tokens": 1e2,
        "n": 2,
        "stream": True,
    }
    yield json.dumps(chat).encode()
    yield json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}], "outputs": [{"name": "y"}]}
    ).encode()
    yield b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    yield b"\0\0\0\0\x03\x0a\x01m"


def _at_doors(target: str) -> Iterator[bytes]:
    match target:
        case "token":
            yield f"Bearer {good_token('EdDSA')[:-8]}".encode()
            yield b"\0".join(json.dumps(part).encode() for part in (good_header(issuer("EdDSA")), good_claims()))
        case "envelope":
            authority = Authority()
            entry = authority.entry()
            yield entry.header + b"\0" + entry.payload
            yield from (authority.root().raw, authority.heartbeat(EMPTY).body)
        case "body":
            yield from _bodies()
        case "target":
            yield from (target.encode() for target in sorted(corpus())[:: 1 + len(list(corpus())) // 60])


def seeds(target: str) -> Iterator[bytes]:
    """Yield the first inputs of a target."""
    examples = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(EXAMPLES.glob("*.yaml"))]
    csv = [path.read_bytes() for path in sorted(POLICIES.glob("*.csv"))]
    match target:
        case "model":
            yield (POLICIES / "model.conf").read_bytes() + b"\0" + csv[0]
            yield from (f"{each['model']}\0{each['policy']}".encode() for each in examples)
        case "matcher":
            for each in examples:
                yield from (line[4:].encode() for line in each["model"].split("\n") if line.startswith("m = "))
        case "rows":
            yield from csv
        case "pack":
            yield b"\0" + (POLICIES / "vocabulary.yaml").read_bytes()
            yield from (b"\x02" + path.read_bytes() for path in sorted(POLICIES.glob("tests/*.yaml")))
        case "audit":
            yield from _chain()
        case "token" | "envelope" | "body" | "target":
            yield from _at_doors(target)
        case _:
            yield b"request.purpose == 'x' && size(resource.approvals) >= 2\0recheck_after=10s; deny_columns=a,b"
            yield b'now < timestamp("2026-06-01T00:00:00Z")\0row_filter={"op": "==", "column": "a", "value": 1}'
