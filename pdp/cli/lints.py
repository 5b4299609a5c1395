"""What `pdp policy lint` looks at beside the rules: the pack's inventory, the comments that answer a finding, the log."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdp.engine.findings import Finding
from pdp.engine.lint import Surroundings, Use, justified, lint
from pdp.engine.pack import Pack
from pdp.errors import BadRequestError, ConfigError


def lint_pack(
    pack: Pack, files: Mapping[str, bytes], *, used: Path | None, now_ms: int
) -> tuple[tuple[Finding, ...], int]:
    """Return the findings that no comment in the pack answers, and how many are answered."""
    assets = {seed.name: str(seed.attributes.get("segment", "")) for seed in pack.assets}
    uses = tuple(_uses(used)) if used is not None else None
    found = lint(pack.snapshot, Surroundings(now_ms=now_ms, assets=assets or None, uses=uses))
    texts = {name: raw.decode(errors="replace") for name, raw in files.items() if name.endswith((".csv", ".yaml"))}
    answered = justified(texts)
    left = tuple(item for item in found if (item.file, item.code) not in answered)
    return left, len(found) - len(left)


def _uses(path: Path) -> Iterator[Use]:
    """Yield each use of a rule in a file of decision records, one JSON object a line; denials are no use.

    Raises:
        ConfigError, BadRequestError: the file cannot be read, or a line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}") from error
    for number, line in enumerate(lines, start=1):
        record: Any = None
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadRequestError(f"{path}:{number}: not a record") from error
        if not isinstance(record, dict):
            raise BadRequestError(f"{path}:{number}: not a record")
        if record.get("effect") == "allow":
            for rule in record.get("determining", ()):
                yield Use(
                    rule=str(rule), action=str(record.get("action", "")), resource=str(record.get("resource", ""))
                )
