"""Worlds that once broke a law: each a file of its own under `corpus/`, written when a test fails and replayed by every run.

A file holds the whole world and not the seed it came from, so it says the same when the generators have changed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdp.engine.casbin_text import Row, parse_model
from pdp.engine.question import EngineRequest
from tests.spec.generators.models import CasbinWorld, Kind
from tests.spec.generators.worlds import GeneratedWorld, read_model

World = CasbinWorld | GeneratedWorld
FOLDER = Path(__file__).parent / "corpus"


@contextmanager
def kept(world: World, law: str) -> Iterator[None]:
    """Write a world to the corpus if the law fails on it; the smallest that hypothesis finds comes last and stays."""
    try:
        yield
    except Exception:
        (FOLDER / f"found-{law}.json").write_text(json.dumps(to_json(world), indent=1) + "\n", encoding="utf-8")
        raise


def worlds(sort: type[World]) -> dict[str, World]:
    """Return the worlds of the corpus of one sort, by the names of their files."""
    found = {
        path.stem: from_json(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.json"))
    }
    return {stem: world for stem, world in found.items() if isinstance(world, sort)}


def to_json(world: World) -> dict[str, Any]:
    rows = [row.to_json() for row in world.rows]
    questions = [
        [question.context, list(question.values), dict(question.memberships), dict(question.attributes)]
        for question in world.questions
    ]
    seeded = {"kind": world.kind, "seed": world.seed} if isinstance(world, CasbinWorld) else {}
    return {**seeded, "model": world.text, "rows": rows, "questions": questions}


def from_json(raw: dict[str, Any]) -> World:
    rows = tuple(map(Row.from_json, raw["rows"]))
    questions = tuple(
        EngineRequest(
            context=context, values=tuple(values), memberships=_tuples(memberships), attributes=_tuples(attributes)
        )
        for context, values, memberships, attributes in raw["questions"]
    )
    if "seed" not in raw:
        return GeneratedWorld(model=read_model(raw["model"]), rows=rows, questions=questions)
    model, found = parse_model(raw["model"], file="model.conf", served=False)
    assert model is not None, found
    return CasbinWorld(
        seed=raw["seed"],
        kind=Kind(raw["kind"]),
        text=raw["model"],
        model=model,
        rows=rows,
        questions=questions,
        now_ms=0,
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
