"""Patterns of Casbin's functions: what each matches, what is refused, and that they agree with pycasbin's own."""

from collections.abc import Callable
from itertools import product
from random import Random

import pytest
from casbin import util

from pdp.engine.functions import FUNCTIONS
from pdp.engine.patterns import PatternError, is_canonical, parse_address, read_pattern, within
from pdp.engine.tables import table_of

THEIRS: dict[str, Callable[[str, str], bool]] = {
    "keyMatch": util.key_match,
    "keyMatch2": util.key_match2,
    "keyMatch3": util.key_match3,
    "keyMatch4": util.key_match4,
    "keyMatch5": util.key_match5,
    "globMatch": util.glob_match,
    "regexMatch": util.regex_match,
    "ipMatch": util.ip_match,
}
SEGMENTS = {
    "keyMatch": ("a", "b", "*"),
    "keyMatch2": ("a", "b", ":x", ":y", "*", "*b"),
    "keyMatch3": ("a", "{x}", "{y}b", "*", "a{x}-{y}"),
    "keyMatch4": ("a", "{x}", "{x}b", "{y}", "*"),
    "keyMatch5": ("a", "{x}", "b{x}", "*"),
    "globMatch": ("a", "*", "**", "a*", "?", "[ab]", "[!a]", ".a", "*.a"),
    "regexMatch": ("a", "[ab]+", ".*", "(a|b)", r"\.a", "b?"),
}
NETWORKS = ("10.0.0.0/8", "10.1.2.3", "10.1.2.3/24", "::1", "2001:db8::/32", "0.0.0.0/0")
ADDRESSES = ("10.1.2.3", "10.1.2.4", "11.0.0.1", "::1", "2001:db8::5", "fe80::1")
NAMES = [
    start + "/".join(segments)
    for count in (1, 2, 3, 4)
    for segments in product(("a", "b", "ab", ".a", "a-b"), repeat=count)
    for start in ("", "/")
]


def patterns(kind: str, rng: Random) -> list[str]:
    if kind == "ipMatch":
        return list(NETWORKS)
    found = set()
    for _ in range(150):
        text = rng.choice(("/", "")) + "/".join(rng.choice(SEGMENTS[kind]) for _ in range(rng.randint(1, 4)))
        text = f"^{text}$" if kind == "regexMatch" else text
        try:
            read_pattern(kind, text)
        except PatternError:
            continue
        found.add(text)
    return sorted(found)


@pytest.mark.parametrize("kind", THEIRS)
def test_a_pattern_that_is_accepted_matches_what_pycasbin_matches_and_the_index_finds_it(kind: str) -> None:
    rng = Random(kind)  # noqa: S311 - names, not keys
    written = patterns(kind, rng)
    table = table_of(kind)
    for text in written:
        table.put(text, text)
    assert len(written) > 5
    for name in ADDRESSES if kind == "ipMatch" else rng.sample([name for name in NAMES if is_canonical(name)], 200):
        found: list[str] = []
        table.find(name, found)
        assert len(found) == len(set(found))
        for text in written:
            assert FUNCTIONS[kind](name, text) is (text in found) is THEIRS[kind](name, text), (name, text)


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        ("keyMatch", "/models/*/metadata", "PC301"),
        ("keyMatch", "/models/../x", "PC302"),
        ("keyMatch2", "/models//x", "PC302"),
        ("keyMatch2", "/models/", "PC302"),
        ("globMatch", "/models/./x", "PC302"),
        ("keyMatch2", "/models/(a|b)", "PC303"),
        ("keyMatch2", "/a{x}", "PC303"),
        ("keyMatch3", "/a*", "PC303"),
        ("keyMatch3", "*", "PC303"),
        ("keyMatch2", "/v1/models/m:predict", "PC304"),
        ("keyMatch2", ":id", "PC304"),
        ("keyMatch4", "/{a}-{b}", "PC305"),
        ("keyMatch5", "/{a}{b}", "PC305"),
        ("keyMatch3", "/{}", "PC307"),
        ("keyMatch2", "/:", "PC307"),
        ("keyMatch2", "/" + "a" * 600, "PC307"),
        ("regexMatch", "read", "PC310"),
        ("regexMatch", "^(read|write)$|list", "PC310"),
        ("regexMatch", r"read\$", "PC310"),
        ("regexMatch", "(read$|list)", "PC310"),
        ("regexMatch", "(a", "PC311"),
        ("regexMatch", r"(a)\1$", "PC311"),
        ("regexMatch", r"\bread$", "PC311"),
        ("regexMatch", r"\W$", "PC311"),
        ("regexMatch", "(?m)a$", "PC311"),
        ("regexMatch", "(?=a).*", "PC311"),
        ("regexMatch", "a{,3}$", "PC311"),
        ("globMatch", "*/a", "PC312"),
        ("globMatch", "{a,b}", "PC307"),
        ("globMatch", "a/**/**", "PC307"),
        ("globMatch", "[[:alpha:]]", "PC307"),
        ("ipMatch", "10.0.0.0/33", "PC307"),
        ("ipMatch", "localhost", "PC307"),
    ],
)
def test_what_could_mean_two_things_is_refused(kind: str, text: str, code: str) -> None:
    with pytest.raises(PatternError) as refused:
        read_pattern(kind, text)
    assert refused.value.code == code
    assert FUNCTIONS[kind]("a", text) is None


@pytest.mark.parametrize(
    "text", ["^read$", "read.*", "^(read|write)$", "(a$|b.*)", "(?:a|b)$", "(?i)get$", r"a\\$", "[$]x$", "x|y.*$|z.*"]
)
def test_an_expression_is_anchored_if_every_alternative_is(text: str) -> None:
    if text.startswith("x|"):
        with pytest.raises(PatternError):
            read_pattern("regexMatch", text)
    else:
        read_pattern("regexMatch", text)


@pytest.mark.holds("L3", "F19")
def test_a_regular_expression_takes_linear_time_and_matches_to_the_end() -> None:
    assert read_pattern("regexMatch", "^(a+)+$").covers("a" * 400 + "b") is False
    assert read_pattern("regexMatch", "^read$").covers("read\n") is False
    assert read_pattern("keyMatch2", "/a/:x").covers("/a/b\n") is True
    assert read_pattern("keyMatch2", "/a/b").covers("/a/b\n") is False


def test_patterns_that_deserve_a_warning_say_so() -> None:
    assert read_pattern("keyMatch2", "/a/*").crosses
    assert not read_pattern("keyMatch2", "/a/:x").crosses
    assert read_pattern("globMatch", "/data/**").skips_dots
    assert not read_pattern("globMatch", "/data/x").skips_dots


def test_addresses_are_addresses_and_mapped_ones_are_unwrapped() -> None:
    assert str(parse_address("::ffff:10.1.2.3")) == "10.1.2.3"
    assert parse_address("fe80::1%eth0") is None
    assert FUNCTIONS["ipMatch"]("localhost", "10.0.0.0/8") is None
    assert FUNCTIONS["ipMatch"]("::ffff:10.1.2.3", "10.0.0.0/8") is True
    assert FUNCTIONS["ipMatch"]("10.1.2.3", "::ffff:10.0.0.0/104") is True


@pytest.mark.parametrize("name", ["/a/../b", "/a/./b", "/a//b", "a/", "/a?x=1", "..", "."])
def test_a_name_that_can_be_read_in_two_ways_is_not_canonical(name: str) -> None:
    assert not is_canonical(name)


def test_instants_are_utc_and_bounds_are_exclusive() -> None:
    assert within("1970-01-01 00:00:01", "_", 1_000) is False
    assert within("1970-01-01 00:00:01", "_", 1_001) is True
    assert within("_", "1970-01-01T00:00:01Z", 999) is True
    assert within("_", "yesterday", 0) is None
