"""How `pdp policy diff` tells what changes: cells that change alike in one line, the worst first."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pdp.adapters.pack_files import read_pack
from pdp.cli.options import instant_text
from pdp.cli.output import write_line, write_table
from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.diff import ORDER, Cell, Change
from pdp.engine.findings import PackRefused
from pdp.engine.pack import Pack, load_pack
from pdp.model.attributes import Attributes
from pdp.model.names import ENVIRONMENTS, counted
from pdp.sdk.admin import Policy, PolicyRow
from pdp.service.packs import difference
from pdp.world import Policy as WorldPolicy
from pdp.world import policy_after

_COLUMNS: Final = ("change", "who", "action", "resource", "where", "if")
_NAMES_SHOWN: Final = 3
_EVERYBODY: Final = "*"


def live_snapshot(policy: Policy) -> Snapshot:
    """Return the live policy of a PDP, compiled here.

    Raises:
        PackRefused: it does not compile here: this command is older than the PDP.
    """
    compiled = compile_texts(policy.model, policy.vocabulary, tuple(map(row_of, policy.rows)))
    if not isinstance(compiled, Snapshot):
        raise PackRefused(compiled)
    return compiled


def live_policy(policy: Policy) -> WorldPolicy:
    """Return the live policy of a PDP as a world holds it. Raises as `live_snapshot`."""
    return WorldPolicy(
        model_text=policy.model,
        vocabulary_text=policy.vocabulary,
        snapshot=live_snapshot(policy),
        revision=policy.revision,
    )


def become(live: WorldPolicy | None, directory: Path) -> Snapshot:
    """Return what `live` would become if the pack in `directory` were applied: rows that come from no pack stay.

    Raises:
        PackRefused: it has errors, or what it would become has.
    """
    files = read_pack(directory)
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        raise PackRefused(pack)
    return policy_after(live, difference(live, pack, files.keys())).snapshot


def row_of(row: PolicyRow) -> Row:
    """Return a row as the engine reads it."""
    file, _, line = row.id.rpartition(":")
    return Row(row.section, row.fields, file, int(line))


def tell(cells: Sequence[Cell], snapshots: Iterable[Snapshot]) -> None:
    """Print a table of the cells, and how many there are of each kind."""
    fields = {suffix: one.context.request for snapshot in snapshots for suffix, one in snapshot.contexts.items()}
    groups: dict[tuple[Any, ...], list[tuple[str, ...]]] = {}
    for cell in cells:
        if not cell.by:
            who, action, resource, where = _parts(cell, fields[cell.context])
            key = (cell.change, who, resource, _when(cell), cell.names, cell.context)
            groups.setdefault(key, []).append((action, where))
    rows = [
        (key[0].value, _who(key[1], key[4]), _actions(pair[0] for pair in pairs), key[2], _where(pairs), key[3])
        for key, pairs in groups.items()
    ]
    if rows:
        write_table(_COLUMNS, rows)
    for change, (names, resources) in _concerned(cells, fields).items():
        people = "everybody" if _EVERYBODY in names else counted(len(names), "principal or role", "principals or roles")
        write_line(f"{change.value}: {people}, {counted(len(resources), 'resource class', 'resource classes')}")
    counts = {change: sum(cell.change is change for cell in cells) for change in ORDER}
    told = ", ".join(f"{count} {change.value}" for change, count in counts.items() if count)
    write_line(f"{counted(len(cells), 'cell changes', 'cells change')}: {told}" if cells else "no cell changes")


def _concerned(cells: Sequence[Cell], fields: Mapping[str, Sequence[str]]) -> dict[Change, tuple[set[str], set[str]]]:
    """Return for each kind of change who and what it concerns: the known holders of a role, or else its own name."""
    found: dict[Change, tuple[set[str], set[str]]] = {}
    for cell in cells:
        who, _, resource, _ = _parts(cell, fields[cell.context])
        names, resources = found.setdefault(cell.change, (set(), set()))
        names.update(cell.names or (who,))
        resources.add(resource)
    return {change: found[change] for change in ORDER if change in found}


def cell_json(cell: Cell, fields: Sequence[str]) -> dict[str, Any]:
    """Return a cell as `--json` prints it."""
    return {
        "context": cell.context or "grants",
        "cell": dict(zip(fields, cell.values, strict=True)),
        "change": cell.change.value,
        "always": cell.always,
        "witness": dict(cell.witness),
        "from_ms": cell.from_ms,
        "names": cell.names,
        "by": cell.by,
    }


def _parts(cell: Cell, fields: Sequence[str]) -> tuple[str, str, str, str]:
    """Return who, action, resource and where of a cell, whatever its model calls them."""
    named = dict(zip(fields, cell.values, strict=True))
    who, action = named.pop(fields[0]), named.pop("act", "")
    where = named.pop("env", "")
    return who, action, ", ".join(named.values()), where


def _who(label: str, names: tuple[str, ...]) -> str:
    shown = "everyone else" if label == _EVERYBODY else label
    if not names:
        return shown
    some = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"{shown} (with {len(names)}: {some})"


def _actions(actions: Iterable[str]) -> str:
    """Return actions as a row writes them: `dataset.read|write`; those of another language as they are."""
    by_type: dict[str, list[str]] = {}
    others: list[str] = []
    for action in dict.fromkeys(actions):
        kind, dot, verb = action.partition(".")
        if dot and kind.isidentifier() and verb.isidentifier():
            by_type.setdefault(kind, []).append(verb)
        else:
            others.append(action)
    typed = [f"{kind}.{'|'.join(sorted(verbs))}" for kind, verbs in sorted(by_type.items())]
    return ", ".join((*typed, *sorted(others)))


def _where(pairs: Iterable[tuple[str, ...]]) -> str:
    found = {where for _, where in pairs}
    return "everywhere" if set(ENVIRONMENTS) <= found else ", ".join(sorted(found))


def _when(cell: Cell) -> str:
    since = f"from {instant_text(cell.from_ms)}" if cell.from_ms else ""
    depends = "" if cell.always else f"e.g. {_attributes(cell.witness)}" if cell.witness else "as conditions say"
    return "; ".join(part for part in (since, depends) if part)


def _attributes(attributes: Attributes) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in attributes.items())
