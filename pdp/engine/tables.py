"""Tables of the patterns that Casbin's functions read, and of names by segments: one look-up finds what covers a value.

Each kind of pattern has a table that finds it by what every match must begin with: characters, segments, a network. What a
place in a table finds is still checked, where the pattern says more than its place (`Bucket`). The trie is for our own
names, where the place says all.
"""

from typing import Any, Final

from pdp.engine.patterns import Pattern, Verify, parse_address, read_pattern

Values = dict[str, Any]
"""What stands under each text of a table."""


def split_version(name: str) -> tuple[str, str]:
    """Return a resource's name without its version, and the version; any other name has none.

    Only resources have versions: `user:bob@example.com` is one name, and never the same as `user:bob`.
    """
    if "@" not in name:
        return name, ""
    base, _, version = name.partition("@")
    return (base, version) if "/" in base and ":" not in base else (name, "")


def is_pattern(text: str) -> bool:
    """Tell whether a name in a row is a pattern: whether a whole segment of it is a wildcard."""
    return "*" in text and any(segment in {"*", "**"} for segment in split_version(text)[0].split("/"))


class Trie:
    """Patterns of names by segments: `*` is any one segment, a last `**` one or more.

    A node is one small object: there is one for nearly every row. `end` and `below` are the values of the patterns that end
    here, or here with `**`, for every version; `versions` holds, where there are any, those of one version, by whether
    they end in `**` and the version.
    """

    __slots__ = ("below", "children", "end", "star", "versions")

    def __init__(self) -> None:
        self.children: dict[str, Trie] | None = None
        self.star: Trie | None = None
        self.end: Any = None
        self.below: Any = None
        self.versions: dict[tuple[bool, str], Any] | None = None

    @property
    def empty(self) -> bool:
        """Whether no pattern stands here or below."""
        return (
            not (self.children or self.star or self.versions)
            and self.end is None  # a value may be an empty one
            and self.below is None
        )

    def copied(self) -> "Trie":
        """Return a copy that shares what is below it."""
        copy = Trie()
        copy.children = dict(self.children) if self.children else None
        copy.versions = dict(self.versions) if self.versions else None
        copy.star, copy.end, copy.below = self.star, self.end, self.below
        return copy

    def get(self, pattern: str) -> Any:
        """Return the value of `pattern`, or None."""
        segments, deep, version = path_of(pattern)
        node: Trie | None = self
        for segment in segments:
            if node is None:
                return None
            node = node.star if segment == "*" else (node.children or {}).get(segment)
        return None if node is None else node.value(deep=deep, version=version)

    def put(self, pattern: str, value: Any) -> None:
        """Set the value of `pattern`, making the nodes that lead to it."""
        segments, deep, version = path_of(pattern)
        node = self
        for segment in segments:
            if segment == "*":
                node.star = node.star or Trie()
                node = node.star
            else:
                if node.children is None:
                    node.children = {}
                following = node.children.get(segment)
                if following is None:
                    following = node.children[segment] = Trie()
                node = following
        node.set(value, deep=deep, version=version)

    def link(self, segment: str, child: "Trie | None") -> None:
        """Set the node that follows `segment`; None takes it away."""
        if segment == "*":
            self.star = child
            return
        children = self.children or {}
        if child is None:
            children.pop(segment, None)
        else:
            children[segment] = child
        self.children = children or None

    def value(self, *, deep: bool, version: str) -> Any:
        """Return the value of the pattern that ends here, or None."""
        if version:
            return (self.versions or {}).get((deep, version))
        return self.below if deep else self.end

    def set(self, value: Any, *, deep: bool, version: str) -> None:
        """Set the value of the pattern that ends here; None takes it away."""
        if version:
            versions = dict(self.versions or {})
            versions[deep, version] = value
            self.versions = {key: one for key, one in versions.items() if one is not None} or None
        elif deep:
            self.below = value
        else:
            self.end = value

    def find(self, segments: list[str], version: str, found: list[Any]) -> None:
        """Append to `found` the value of every pattern that covers the name."""
        node = self
        for depth, segment in enumerate(segments):
            if node.star is not None:
                _find_all(node, segments[depth:], version, found)
                return
            if node.below is not None or node.versions is not None:
                node.take(found, deep=True, version=version)
            child = None if node.children is None else node.children.get(segment)
            if child is None:
                return
            node = child
        node.take(found, deep=False, version=version)

    def take(self, found: list[Any], *, deep: bool, version: str) -> None:
        """Append to `found` the values of the patterns that end here: of that for every version, and that for `version`."""
        every = self.below if deep else self.end
        if every is not None:
            found.append(every)
        if version and self.versions is not None:
            value = self.versions.get((deep, version))
            if value is not None:
                found.append(value)


def _find_all(start: Trie, segments: list[str], version: str, found: list[Any]) -> None:
    """Go on from a node with a `*`, along it and along what the name says."""
    nodes = [start]
    for segment in segments:
        following = []
        for node in nodes:
            if node.below is not None or node.versions is not None:
                node.take(found, deep=True, version=version)
            if node.children is not None:
                child = node.children.get(segment)
                if child is not None:
                    following.append(child)
            if node.star is not None:
                following.append(node.star)
        nodes = following
    for node in nodes:
        node.take(found, deep=False, version=version)


def path_of(pattern: str) -> tuple[list[str], bool, str]:
    """Return the segments of a pattern, without a last `**`; whether there was one; and the version."""
    base, version = split_version(pattern)
    segments = base.split("/")
    deep = segments[-1] == "**"
    return (segments[:-1] if deep else segments), deep, version


class Bucket:
    """Patterns that are found at the same place: by text, what follows each, and what is left to be checked."""

    __slots__ = ("checks", "values")

    def __init__(self) -> None:
        self.values: Values = {}
        self.checks: dict[str, Verify] = {}

    def place(self, text: str, pattern: Pattern) -> tuple[Values, str]:
        """Return the place for the value of `text`."""
        if pattern.verify is not None:
            self.checks[text] = pattern.verify
        return self.values, text

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern here that matches `value`."""
        checks = self.checks
        for text, following in self.values.items():
            check = checks.get(text)
            if check is None or check(value):
                found.append(following)


class _Buckets:
    """A table whose patterns stand in buckets: what is common to its kinds."""

    __slots__ = ()

    def slot(self, text: str) -> tuple[Values, str]:
        """Return the place for the value of the pattern `text`, made if it is not there."""
        raise NotImplementedError

    def get(self, text: str) -> Any:
        """Return the value of the pattern `text`, or None."""
        values, key = self.slot(text)
        return values.get(key)

    def put(self, text: str, value: Any) -> None:
        """Set the value of the pattern `text`."""
        values, key = self.slot(text)
        values[key] = value


class PrefixTable(_Buckets):
    """Patterns by the characters that each match begins with (`keyMatch`, `regexMatch`): one look-up for each length."""

    __slots__ = ("_kind", "buckets", "lengths")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.buckets: dict[str, Bucket] = {}
        self.lengths: dict[int, int] = {}

    def slot(self, text: str) -> tuple[Values, str]:
        """Return the place for the value of the pattern `text`."""
        pattern = read_pattern(self._kind, text)
        if pattern.prefix not in self.buckets:
            self.buckets[pattern.prefix] = Bucket()
            self.lengths[len(pattern.prefix)] = self.lengths.get(len(pattern.prefix), 0) + 1
        return self.buckets[pattern.prefix].place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that matches `value`."""
        for length in self.lengths:
            bucket = self.buckets.get(value[:length]) if length <= len(value) else None
            if bucket is not None:
                bucket.find(value, found)


class _Node:
    __slots__ = ("children", "end", "open", "star")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.star: _Node | None = None
        self.end: Bucket | None = None
        self.open: Bucket | None = None


class SegmentTable(_Buckets):
    """Patterns by their leading segments (`keyMatch2` to `5`, `globMatch`), those that end there apart from the others."""

    __slots__ = ("_kind", "root")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.root = _Node()

    def slot(self, text: str) -> tuple[Values, str]:
        """Return the place for the value of the pattern `text`."""
        pattern = read_pattern(self._kind, text)
        node = self.root
        for step in pattern.steps:
            if step is None:
                node.star = node.star or _Node()
                node = node.star
            else:
                node = node.children.setdefault(step, _Node())
        if pattern.whole:
            node.end = node.end or Bucket()
            return node.end.place(text, pattern)
        node.open = node.open or Bucket()
        return node.open.place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that matches `value`."""
        nodes = [self.root]
        for segment in value.split("/"):
            following = []
            for node in nodes:
                if node.open is not None:
                    node.open.find(value, found)
                child = node.children.get(segment)
                if child is not None:
                    following.append(child)
                if node.star is not None and segment:
                    following.append(node.star)
            nodes = following
        for node in nodes:
            for bucket in (node.end, node.open):
                if bucket is not None:
                    bucket.find(value, found)


class NetworkTable(_Buckets):
    """Networks by version, length of prefix and address (`ipMatch`): one look-up for each length that occurs."""

    __slots__ = ("_kind", "buckets", "lengths")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.buckets: dict[tuple[int, int, int], Bucket] = {}
        self.lengths: dict[tuple[int, int], int] = {}

    def slot(self, text: str) -> tuple[Values, str]:
        """Return the place for the value of the network `text`."""
        pattern = read_pattern(self._kind, text)
        network = pattern.network
        shift = network.max_prefixlen - network.prefixlen
        key = (network.version, shift, int(network.network_address) >> shift)
        if key not in self.buckets:
            self.buckets[key] = Bucket()
            self.lengths[key[:2]] = self.lengths.get(key[:2], 0) + 1
        return self.buckets[key].place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each network that holds the address `value`."""
        address = parse_address(value)
        if address is None:
            return
        number = int(address)
        for version, shift in self.lengths:
            bucket = self.buckets.get((version, shift, number >> shift)) if version == address.version else None
            if bucket is not None:
                bucket.find(value, found)


class ResourceTable:
    """Patterns of our own resources, beside tests that only this kind of level knows."""

    __slots__ = ("_kind", "trie")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.trie = Trie()

    def get(self, text: str) -> Any:
        """Return the value of the pattern `text`, or None."""
        return self.trie.get(text)

    def put(self, text: str, value: Any) -> None:
        """Set the value of the pattern `text`."""
        self.trie.put(text, value)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that covers the name `value`."""
        base, version = split_version(value)
        self.trie.find(base.split("/"), version, found)


Table = PrefixTable | SegmentTable | NetworkTable | ResourceTable
_TABLES: Final[dict[str, type[Table]]] = {
    "keyMatch": PrefixTable,
    "regexMatch": PrefixTable,
    "ipMatch": NetworkTable,
    "resourceMatch": ResourceTable,
}


def table_of(kind: str) -> Table:
    """Return an empty table for the patterns of function `kind`."""
    return _TABLES.get(kind, SegmentTable)(kind)
