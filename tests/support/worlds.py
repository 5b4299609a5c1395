"""Worlds for tests: rows and assets in, a world folded from truly signed and verified entries out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.pack import rows_digest
from pdp.trust.entry import Head, SignedEntry, seal_next
from pdp.trust.keys import PdpKeys, Role, SigningKey, sign_root
from pdp.trust.verifier import Refused, TrustVerifier
from pdp.world import World, empty_world, fold

PACK = Path(__file__).parents[2] / "policies"
TENANT = "main"
START_MS = 1_790_000_000_000
MODEL = (PACK / "model.conf").read_text()
VOCABULARY = (PACK / "vocabulary.yaml").read_text()


@cache
def keys() -> PdpKeys:
    """Return one pair of online keys for the whole test run."""
    return PdpKeys(publish=SigningKey.generate(), timestamp=SigningKey.generate())


@cache
def verifier() -> TrustVerifier:
    """Return a verifier that trusts `keys()`."""
    root_key = SigningKey.generate()
    roles = {
        Role.ROOT: [root_key.public],
        Role.PUBLISH: [keys().publish.public],
        Role.TIMESTAMP: [keys().timestamp.public],
    }
    root = sign_root(tenant=TENANT, version=1, time_ms=START_MS, roles=roles, signing=[root_key])
    return TrustVerifier(root, TENANT)


def rows(text: str, *, file: str = "test.csv", model_text: str = MODEL) -> tuple[Row, ...]:
    """Return the rows of CSV text under a model, the shipped one if none is given; a finding fails the test."""
    model, findings = parse_model(model_text, file="model.conf")
    assert model is not None, findings
    parsed, findings = parse_rows(text, file=file, model=model)
    assert not findings, [str(finding) for finding in findings]
    return parsed


@dataclass
class Scribe:
    """Writes a log: each method appends one signed entry and folds it."""

    world: World = field(default_factory=lambda: empty_world(TENANT))
    entries: list[SignedEntry] = field(default_factory=list)
    time_ms: int = START_MS

    def write(self, kind: str, payload: Mapping[str, Any], *, author: str = "user:test") -> World:
        """Append one entry, verified like any other, and return the world after it."""
        head = verifier_head(self.world)
        entry = seal_next(
            tenant=TENANT, head=head, kind=kind, payload=dict(payload), author=author, time_ms=self.time_ms,
            keys=[keys().publish],
        )  # fmt: skip
        verified = verifier().verify_entry(entry, head=head, now_ms=self.time_ms)
        assert not isinstance(verified, Refused), verified
        self.world = fold(self.world, verified)
        self.entries.append(entry)
        return self.world

    def policy(self, text: str, *, model_text: str = MODEL) -> World:
        """Make `text` the rows of the live policy; only the first one brings a model."""
        wanted = rows(text, model_text=model_text)
        held = self.world.snapshot.rows if self.world.snapshot else ()
        payload = {
            "model": model_text if not held else None,
            "vocabulary": VOCABULARY if not held else None,
            "added": [row.to_json() for row in wanted if row not in held],
            "removed": [row.to_json() for row in held if row not in wanted],
            "rows_digest": rows_digest(wanted).hex(),
            "message": "test",
        }
        return self.write("policy", payload)

    def assets(self, **named: Mapping[str, Any]) -> World:
        """Register assets given as `name=attributes`; names with `/` go through a plain dictionary splat."""
        return self.write("assets", {"assets": [{"name": name, "attributes": dict(a)} for name, a in named.items()]})

    def lock(self, lock_id: str, target: Mapping[str, Any], *, end_ms: int = 0) -> World:
        """Add a lock."""
        return self.write("lock", {
            "id": lock_id, "target": dict(target), "reason": "test", "source": "user:test",
            "start_ms": self.time_ms, "end_ms": end_ms,
        })  # fmt: skip


def verifier_head(world: World) -> Head:
    """Return the head that the next entry must follow."""
    return Head(seq=world.seq, digest=world.head)


def make_world(policy: str, assets: Mapping[str, Mapping[str, Any]]) -> World:
    """Return a world with these rows and assets."""
    scribe = Scribe()
    scribe.policy(policy)
    return scribe.assets(**assets)
