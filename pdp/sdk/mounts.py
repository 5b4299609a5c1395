"""Where resources lie: `pdp://dataset/finance/transactions/part-0.parquet` names a resource, and a file inside it.

A *mount* says which storage a resource stands for. Mounts come from the caller, else from the JSON file that `PDP_MOUNTS`
names; both have the form

    {"dataset/finance/transactions": "s3://lake/finance/tx",
     "dataset/web/clicks": {"url": "s3://lake/clicks/{snapshot}", "options": {"anon": false}}}

where `{snapshot}` is what the obligation `pin_snapshot` fills in. The longest mount that is a prefix of a path wins.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pdp.errors import BadNameError, ConfigError, Reason
from pdp.model.names import Resource, printable
from pdp.sdk.errors import BadQuestion

SCHEME: Final = "pdp"
SNAPSHOT: Final = "{snapshot}"
_SEGMENT: Final = re.compile(r"[^\x00-\x1f\x7f\\/]+")
_PATHS_KEPT: Final = 4_096
_TYPES: Final = frozenset({"dataset", "model", "artifact"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The storage behind one resource: an fsspec URL, and the options of its filesystem."""

    resource: str
    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def pins(self) -> bool:
        """True if a snapshot can be chosen."""
        return SNAPSHOT in self.url

    def at(self, snapshot: str) -> str:
        """Return the URL for `snapshot`; empty: as it stands.

        Raises:
            BadQuestion: a snapshot is needed and none given, or it would lead out of the mount.
        """
        if self.pins and not snapshot:
            raise BadQuestion(
                Reason.BAD_REQUEST, f"`{self.resource}` is kept by snapshot", advice="name one: snapshot=…"
            )
        if any(part in {"", ".", ".."} for part in snapshot.split("/")) and snapshot:
            raise BadQuestion(Reason.BAD_REQUEST, f"`{printable(snapshot)}` is no snapshot")
        return self.url.replace(SNAPSHOT, snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path inside a mount; `rest` is empty for the mount itself."""

    mount: Mount
    rest: str


class Mounts:
    """All mounts of a filesystem, by resource."""

    def __init__(self, mounts: Mapping[str, Mount]) -> None:
        self._mounts = dict(mounts)
        self._found: dict[str, Place] = {}

    @classmethod
    def resolve(cls, given: "Mapping[str, Any] | Mounts | None") -> "Mounts":
        """Return the mounts given, else those of the file that `PDP_MOUNTS` names.

        Raises:
            ConfigError: there are none, or one is not understood.
        """
        if isinstance(given, Mounts):
            return given
        written = _from_environment() if given is None else given
        return cls({name: _mount(name, value) for name, value in written.items()})

    def __iter__(self) -> Any:
        return iter(self._mounts.values())

    def find(self, path: str) -> Place | None:
        """Return where `path` lies, or None: it is above all mounts, or beside them."""
        known = self._found.get(path)
        if known is not None:
            return known
        parts = path.split("/")
        for end in range(len(parts), 1, -1):
            mount = self._mounts.get("/".join(parts[:end]))
            if mount is not None:
                return self._remember(path, Place(mount=mount, rest="/".join(parts[end:])))
        return None

    def known(self, path: str) -> Place | None:
        """Return where `path` lies if that was found before; what is known here is clean."""
        return self._found.get(path)

    def _remember(self, path: str, place: Place) -> Place:
        """Keep where a path lies: mounts never change. A full memory begins anew."""
        if len(self._found) >= _PATHS_KEPT:
            self._found.clear()
        self._found[path] = place
        return place

    def below(self, path: str) -> dict[str, Mount]:
        """Return the mounts below `path` by their full names."""
        return {name: mount for name, mount in self._mounts.items() if not path or name.startswith(path + "/")}


def clean_path(path: str | os.PathLike[str]) -> str:
    """Return the path of a `pdp://` URL, as `_clean` says."""
    return _clean(os.fspath(path))


@lru_cache(maxsize=_PATHS_KEPT)
def _clean(given: str) -> str:
    """Return the path of a `pdp://` URL without scheme and slashes at its ends.

    Raises:
        BadQuestion: a segment that no file of ours has: empty, `.`, `..`, a backslash, a control character.
    """
    text = given.removeprefix(f"{SCHEME}://").strip("/")
    for segment in text.split("/") if text else ():
        if segment in {".", ".."} or not _SEGMENT.fullmatch(segment):
            raise BadQuestion(
                Reason.BAD_NAME, f"`{printable(text)}`: no segment may be empty, `.`, `..` or unprintable"
            )
    return text


def _from_environment() -> Mapping[str, Any]:
    name = os.environ.get("PDP_MOUNTS", "")
    if not name:
        raise ConfigError("no mounts", advice="give mounts={resource: url}, or name a JSON file in PDP_MOUNTS")
    try:
        written = json.loads(Path(name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"PDP_MOUNTS: cannot read `{name}`: {error}") from error
    if not isinstance(written, dict):
        raise ConfigError(f"PDP_MOUNTS: `{name}` is no JSON object of resources and URLs")
    return written


def _mount(name: str, value: object) -> Mount:
    try:
        resource = Resource.parse(name)
    except BadNameError as error:
        raise ConfigError(f"mounts: {error.message}") from error
    if resource.type not in _TYPES:
        raise ConfigError(f"mounts: `{name}`: only {', '.join(sorted(_TYPES))} have files")
    if isinstance(value, str | os.PathLike):
        return Mount(resource=name, url=os.fspath(value))
    if not isinstance(value, Mapping) or set(value) - {"url", "options"} or not isinstance(value.get("url"), str):
        raise ConfigError(f"mounts: `{name}`: write a URL, or {{url: …, options: {{…}}}}")
    options = value.get("options", {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"mounts: `{name}`: `options` is an object")
    return Mount(resource=name, url=value["url"], options=options)
