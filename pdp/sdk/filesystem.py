"""`pdp://`, an fsspec filesystem: whatever pandas, pyarrow, datasets or fsspec itself do with it is asked first.

    pd.read_parquet("pdp://dataset/finance/transactions/2026.parquet")

Every primitive that touches the inner filesystem decides, on the resource that the path lies in (`mounts.py`): `ls` list,
`info` read_metadata, open read or write, `cp_file` read and write, `rm` delete, `sign` presign. What fsspec builds upon them
inherits their decisions; `METHODS` lists every public method of the base class and which of the two it is, and a test keeps
that list whole. A deny raises `AccessDenied`, which is a `PermissionError`, and is logged with its decision id, since some
tools turn the error into "file not found".

An allow with obligations is refused here but for `recheck_after`, by which an open file is decided again while it is read:
bytes cannot be masked or filtered. `pdp.sdk.open_dataset` carries out the others.

Honest limit: inside one process this guides and does not wall off. The inner filesystem and its credential are in reach
(`fs.inner(path)`); the wall is a credential that expires, or a gate in another process.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import fsspec
from fsspec.spec import AbstractFileSystem

from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.limits import DECISION_CACHE_S
from pdp.sdk._decided_file import DecidedFile
from pdp.sdk.client import Client
from pdp.sdk.errors import AccessDenied, BadQuestion
from pdp.sdk.mounts import SCHEME, Mount, Mounts, Place, clean_path
from pdp.sdk.protocols import Checks
from pdp.sdk.values import AttributeValue

_LOG: Final = logging.getLogger("pdp.sdk")
SUPPORTS: Final = ("recheck_after",)

DECIDED: Final = "decided"
"""Overridden here: decides, then touches the inner filesystem."""
DERIVED: Final = "derived"
"""The base class's own code, which reaches files by the decided ones alone."""
PLAIN: Final = "plain"
"""Touches no file: configuration, caches, serialisation."""

_DECIDED_NAMES: Final = """
    cat_file cp_file created exists get_file info isdir isfile lexists ls makedirs mkdir modified open pipe_file put_file
    rm_file rmdir sign touch walk
"""
_DERIVED_NAMES: Final = """
    cat cat_ranges checksum copy cp delete disk_usage download du expand_path find get get_mapper glob head listdir
    makedir mkdirs move mv pipe put read_block read_bytes read_text rename rm size sizes stat tail tree ukey upload
    write_bytes write_text
"""
_PLAIN_NAMES: Final = """
    async_impl blocksize cachable clear_instance_cache current end_transaction from_dict from_json fsid invalidate_cache
    mirror_sync_methods protocol root_marker sep start_transaction to_dict to_json transaction transaction_type
    unstrip_protocol
"""
METHODS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(_DECIDED_NAMES.split(), DECIDED)
    | dict.fromkeys(_DERIVED_NAMES.split(), DERIVED)
    | dict.fromkeys(_PLAIN_NAMES.split(), PLAIN)
)

_FSSPECS_OWN: Final = frozenset({"block_size", "cache_options"})
"""What `open` of the base class always passes on; unset, it is the inner filesystem's to choose."""
_OPENED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"rb": ("read",), "wb": ("write",)})
_VERBS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "dataset": {
            "list": "dataset.list",
            "info": "dataset.read_metadata",
            "read": "dataset.read",
            "write": "dataset.write",
            "delete": "dataset.delete",
            "sign": "dataset.presign",
        },
        "artifact": {
            "list": "artifact.list",
            "info": "artifact.list",
            "read": "artifact.read",
            "write": "artifact.write",
            "delete": "artifact.delete",
            "sign": "artifact.presign",
        },
        # A model's files are registered and then never change: they are downloaded, or nothing.
        "model": {"list": "model.list", "info": "model.read_metadata", "read": "model.download"},
    }
)


class PdpFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A filesystem whose every access is decided.

    Args:
        mounts: which storage each resource stands for (`pdp.sdk.mounts`); None: the file that `PDP_MOUNTS` names.
        client: who asks; None: a `Client` by the environment, made when it is needed, in each process anew.
        purpose: `request.purpose` of every question.
        snapshot: which snapshot to look at, where a mount is kept by snapshot.
        **options: of fsspec.

    Raises:
        ConfigError: mounts that are missing or not understood.
    """

    protocol = SCHEME
    cachable = False  # two clients must never share an instance, whatever their options look like (FAILURE.md K6)

    def __init__(
        self,
        *,
        mounts: Mapping[str, Any] | Mounts | None = None,
        client: Checks | None = None,
        purpose: str = "",
        snapshot: str = "",
        **options: Any,
    ) -> None:
        if options.pop("asynchronous", False):
            raise ConfigError("pdp:// is blocking", advice="open it without asynchronous=True, in a thread")
        super().__init__(**options)
        self._mounts = Mounts.resolve(mounts)
        self._given = client
        self._own: tuple[int, Client] | None = None
        self._about: dict[str, AttributeValue] = {"request.purpose": purpose} if purpose else {}
        self._snapshot = snapshot
        self._inner: dict[tuple[int, str], tuple[Any, str]] = {}
        self._granted: dict[tuple[str, str], tuple[int, float]] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [clean_path(one) for one in path]
        return clean_path(path)

    @property
    def fsid(self) -> str:
        """A name of this filesystem for those who keep one."""
        return SCHEME

    def inner(self, path: str) -> tuple[Any, str]:
        """Return the inner filesystem and path behind `path`, undecided: the honest limit of a guide in the process."""
        return self._reach(self._place(path))

    # Deciding.

    def allow(self, verb: str, path: str) -> Place:
        """Return where `path` lies if `verb` is granted there.

        Raises:
            AccessDenied: it is not.
            PdpError: nobody can say.
            FileNotFoundError: no mount holds it.
        """
        place = self._place(path)
        self._grant(verb, place.mount)
        return place

    def _grant(self, verb: str, mount: Mount) -> float:
        """Ask, unless the last answer still stands; return until when this one does, by the monotonic clock."""
        client = self._client()
        world_seq, until_s = self._granted.get((verb, mount.resource), (-1, 0.0))
        if world_seq == client.world_seq and time.monotonic() < until_s:
            return until_s
        action = _action(verb, mount)
        asked_s = time.monotonic()
        decision = client.check(action, mount.resource, attributes=self._about, supports=SUPPORTS)
        if not decision.allowed:
            _LOG.warning(
                "%s on %s denied: %s, decision %s", action, mount.resource, decision.reason, decision.decision_id
            )
            raise AccessDenied(decision, action=action, resource=mount.resource)
        bound_s = DECISION_CACHE_S if decision.recheck_after_s is None else decision.recheck_after_s
        until_s = asked_s + min(bound_s, DECISION_CACHE_S)
        if client.one_identity:  # else the next question may be somebody else's (K6)
            self._granted[verb, mount.resource] = (decision.world_seq, until_s)
        return until_s

    def _grant_each(self, verbs: tuple[str, ...], mount: Mount) -> float:
        return min([self._grant(verb, mount) for verb in verbs])

    def _client(self) -> Checks:
        if self._given is not None:
            return self._given
        if self._own is None or self._own[0] != os.getpid():
            self._own = (os.getpid(), Client())
            self._granted.clear()
        return self._own[1]

    def _place(self, path: str) -> Place:
        known = self._mounts.known(path)
        if known is not None:
            return known
        stripped = clean_path(path)
        place = self._mounts.find(stripped)
        if place is None:
            raise FileNotFoundError(f"pdp://{stripped}: no mount holds it; mounts are given, or named by PDP_MOUNTS")
        return place

    def _reach(self, place: Place) -> tuple[Any, str]:
        # By process: an inner filesystem with threads of its own does not survive a fork either.
        key = (os.getpid(), place.mount.resource)
        if key not in self._inner:
            url = place.mount.at(self._snapshot)
            filesystem, root = fsspec.core.url_to_fs(url, **place.mount.options)
            self._inner[key] = (filesystem, root.rstrip("/"))
        filesystem, root = self._inner[key]
        return filesystem, f"{root}/{place.rest}" if place.rest else root

    def _to(self, verb: str, path: str) -> tuple[Any, str]:
        return self._reach(self.allow(verb, path))

    # The decided primitives.

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file. A plain read takes the short way: thousands of small files are most of what training reads."""
        return super().open(path, mode, **options) if options or mode != "rb" else self._open(path, mode)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        verbs = _OPENED.get(mode) or _verbs(mode)
        place = self._place(path)
        first, *others = verbs
        again = partial(self._grant_each, verbs, place.mount) if others else partial(self._grant, first, place.mount)
        until_s = again()
        filesystem, inner = self._reach(place)
        options = {name: value for name, value in options.items() if value is not None or name not in _FSSPECS_OWN}
        # A plain read needs nothing of what `open` adds: `inner` is stripped already, and there is no transaction to join.
        plain = mode == "rb" and not options.keys() - {"autocommit"}
        file = filesystem._open(inner, mode) if plain else filesystem.open(inner, mode, **options)  # noqa: SLF001 - fsspec's seam
        return DecidedFile(file, again, until_s)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        """Return the content of a file, or a range of it."""
        filesystem, inner = self._to("read", path)
        return filesystem.cat_file(inner, start=start, end=end, **options)

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **options: Any) -> None:
        """Copy a file to a local one."""
        filesystem, inner = self._to("read", rpath)
        more = {} if callback is None else {"callback": callback}
        if outfile is not None:
            more["outfile"] = outfile
        filesystem.get_file(inner, lpath, **more, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write a whole file."""
        filesystem, inner = self._to("write", path)
        filesystem.pipe_file(inner, value, mode=mode, **options)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        """Copy a local file here."""
        filesystem, inner = self._to("write", rpath)
        more = {} if callback is None else {"callback": callback}
        filesystem.put_file(lpath, inner, mode=mode, **more, **options)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy one file: needs read there and write here."""
        source, inner1 = self._to("read", path1)
        target, inner2 = self._to("write", path2)
        if source is target:
            source.cp_file(inner1, inner2, **options)
        else:
            target.pipe_file(inner2, source.cat_file(inner1))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:  # noqa: FBT001, FBT002 - fsspec's signature
        """List a directory; above the mounts, those of them that may be listed."""
        stripped = clean_path(path)
        if self._mounts.find(stripped) is None:
            entries = self._above(stripped)
        else:
            place = self.allow("list", path)
            filesystem, inner = self._reach(place)
            entries = [self._outward(entry, place) for entry in filesystem.ls(inner, detail=True, **options)]
        return entries if detail else [entry["name"] for entry in entries]

    def walk(self, path: str, maxdepth: int | None = None, on_error: Any = "omit", **options: Any) -> Iterator[Any]:
        """Walk a tree, as `find`, `glob` and `du` do; a directory that is denied is an error and no empty one."""
        told = _denied_aloud if on_error == "omit" else on_error
        yield from super().walk(path, maxdepth=maxdepth, on_error=told, **options)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return what is known of a file or directory."""
        stripped = clean_path(path)
        if self._mounts.find(stripped) is None:
            self._above(stripped)
            return _directory(stripped)
        place = self.allow("info", path)
        filesystem, inner = self._reach(place)
        entry: dict[str, Any] = {**filesystem.info(inner, **options), "name": stripped}
        return entry

    def exists(self, path: str, **options: Any) -> bool:
        """Tell whether a file is there; a deny is an error, since "no" would make tools write a new one."""
        try:
            self.info(path, **options)
        except FileNotFoundError:
            return False
        return True

    def lexists(self, path: str, **options: Any) -> bool:
        """As `exists`: what a link leads to is the inner filesystem's."""
        return self.exists(path, **options)

    def isdir(self, path: str) -> bool:
        """Tell whether a directory is there."""
        return self._is(path, "directory")

    def isfile(self, path: str) -> bool:
        """Tell whether a file is there."""
        return self._is(path, "file")

    def created(self, path: str) -> Any:
        """Return when a file was made."""
        filesystem, inner = self._to("info", path)
        return filesystem.created(inner)

    def modified(self, path: str) -> Any:
        """Return when a file was changed."""
        filesystem, inner = self._to("info", path)
        return filesystem.modified(inner)

    def sign(self, path: str, expiration: int = 100, **options: Any) -> str:
        """Return an address that opens the file for whoever has it: it leaves our control."""
        filesystem, inner = self._to("sign", path)
        address: str = filesystem.sign(inner, expiration=expiration, **options)
        return address

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:  # noqa: FBT001, FBT002 - fsspec's signature
        """Make an empty file."""
        filesystem, inner = self._to("write", path)
        filesystem.touch(inner, truncate=truncate, **options)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:  # noqa: FBT001, FBT002 - fsspec's signature
        """Make a directory."""
        filesystem, inner = self._to("write", path)
        filesystem.mkdir(inner, create_parents=create_parents, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - fsspec's signature
        """Make a directory and those above it, inside its mount."""
        filesystem, inner = self._to("write", path)
        filesystem.makedirs(inner, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        filesystem, inner = self._to("delete", path)
        filesystem.rmdir(inner)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self._rm(path)

    def _rm(self, path: str) -> None:
        filesystem, inner = self._to("delete", path)
        filesystem.rm_file(inner)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings, and what was granted."""
        self._granted.clear()
        for filesystem, _ in self._inner.values():
            filesystem.invalidate_cache()
        super().invalidate_cache(path)

    # What is outside.

    def _is(self, path: str, kind: str) -> bool:
        try:
            return bool(self.info(path)["type"] == kind)
        except FileNotFoundError:
            return False

    def _above(self, path: str) -> list[dict[str, Any]]:
        """Return the directories above the mounts that lead to one which may be listed."""
        below = self._mounts.below(path)
        if not below:
            raise FileNotFoundError(f"pdp://{path}: no mount holds it; mounts are given, or named by PDP_MOUNTS")
        names: dict[str, None] = {}
        for name, mount in below.items():
            if self._may_list(mount):
                rest = name[len(path) + 1 :] if path else name
                names[f"{path}/{rest.split('/')[0]}" if path else rest.split("/")[0]] = None
        return [_directory(name) for name in names]

    def _may_list(self, mount: Mount) -> bool:
        try:
            self._grant("list", mount)
        except AccessDenied:
            return False
        return True

    def _outward(self, entry: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return an inner entry under the name by which it is reached here."""
        _, root = self._reach(Place(mount=place.mount, rest=""))
        rest = str(entry["name"]).rstrip("/").removeprefix(root).strip("/")
        return {**entry, "name": f"{place.mount.resource}/{rest}" if rest else place.mount.resource}


def _verbs(mode: str) -> tuple[str, ...]:
    """Return what a mode needs; one that neither reads nor writes is the inner filesystem's to refuse, after a read."""
    found = tuple(verb for verb, marks in (("read", "r+"), ("write", "wax+")) if set(mode) & set(marks))
    return found or ("read",)


def _action(verb: str, mount: Mount) -> str:
    action = _VERBS[mount.resource.partition("/")[0]].get(verb)
    if action is None:
        raise BadQuestion(
            Reason.UNKNOWN_ACTION, f"`{mount.resource}`: a model's files cannot be changed or signed here"
        )
    return action


def _denied_aloud(error: Exception) -> None:
    if isinstance(error, PortcullisError):
        raise error


def _directory(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}
