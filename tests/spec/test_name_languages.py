"""What a pattern is read to match, against the function that decides; and that no class of names is left out."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.address_classes import address_classes
from pdp.engine.classes import is_principal, is_resource
from pdp.engine.functions import FUNCTIONS, member_match
from pdp.engine.languages import NONE, TooManyClassesError, Tree, Trees, classes_of
from pdp.engine.name_languages import BELOW, MEMBER, PATH, asked, language, principals, resources
from pdp.engine.patterns import PatternError, is_canonical, parse_address, read_pattern
from pdp.engine.regex_language import IrregularError
from tests.spec.profiles import tries

SIGNS = "ab/.A\n-"
NAMES = st.text(SIGNS, max_size=7)
_PIECES = st.sampled_from(
    [
        "a",
        "b",
        "A",
        "/",
        r"\.",
        ".",
        "[ab]",
        "[^a]",
        "[^/]",
        r"\w",
        r"\d",
        r"\s",
        r"\-",
        "[a-b/.]",
        "[]a]",
        "[a-]",
        "^",
        "$",
        "-",
    ]
)
REGEXES = st.recursive(
    _PIECES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", "{0}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda text: f"(?i:{text})"),
        inner.map(lambda text: f"(?P<n>{text})"),
    ),
    max_leaves=6,
)
KEYS = st.lists(
    st.sampled_from(["a", "b", "ab", ":x", "{x}", "a{x}", "{x}b", "{y}", "*", "*a"]), min_size=1, max_size=4
)
GLOBS = st.lists(st.sampled_from(["a", "*", "**", "a*", "?", "[ab]", "[!a]b", "*b", ".a", ".*", "[a-b.]?"]), max_size=4)
PATTERNS = st.one_of(
    st.tuples(
        st.just("regexMatch"), REGEXES.flatmap(lambda text: st.sampled_from([f"{text}$", f"{text}.*", f"(?i){text}$"]))
    ),
    st.tuples(
        st.sampled_from(["keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5"]),
        KEYS.map(lambda each: "/" + "/".join(each)),
    ),
    st.tuples(
        st.just("keyMatch"), st.text("ab/.", max_size=3).flatmap(lambda text: st.sampled_from([text, text + "*"]))
    ),
    st.tuples(st.just("keyMatch2"), st.just("*")),
    st.tuples(
        st.just("globMatch"), st.tuples(st.sampled_from(["", "/"]), GLOBS).map(lambda made: made[0] + "/".join(made[1]))
    ),
    st.tuples(st.just(BELOW), st.text("ab/", min_size=1, max_size=3)),
    st.tuples(st.just(PATH), st.just("")),
)


def matches(kind: str, name: str, text: str) -> bool:
    if kind in (BELOW, PATH):
        return name < text if kind == BELOW else is_canonical(name)
    return bool((member_match if kind == MEMBER else FUNCTIONS[kind])(name, text))


def holds(trees: Trees, tree: Tree, name: str) -> bool:
    for character in name:
        tree = trees.after(tree, ord(character))
    return trees.ends(tree)


def read(trees: Trees, kind: str, text: str) -> Tree | None:
    """Return the language of a pattern; None if it is no pattern, or one that is not looked into."""
    try:
        if kind in FUNCTIONS:
            read_pattern(kind, text)
        return language(trees, kind, text)
    except IrregularError as error:
        assert "wants the same text in two places" in str(error)  # noqa: PT017 - what else there is, is no law
    except PatternError:
        pass
    return None


@tries(300)
@given(pattern=PATTERNS, names=st.lists(NAMES, min_size=10, max_size=20))
def test_a_pattern_is_read_as_its_function_decides(pattern: tuple[str, str], names: list[str]) -> None:
    trees = Trees()
    tree = read(trees, *pattern)
    if tree is None:
        return
    kind, text = pattern
    for name in (*names, re.sub(r"[^ab/.A\-]", "", text)):
        assert holds(trees, tree, name) is matches(kind, name, text), name
    words = trees.words(tree)
    assert words is None or all(name in words for name in names if matches(kind, name, text))


@tries(60)
@given(patterns=st.lists(PATTERNS, max_size=5, unique=True), taken=st.sets(NAMES, max_size=4))
def test_of_every_class_a_name_is_found_and_of_none_that_has_no_names(
    patterns: list[tuple[str, str]], taken: set[str]
) -> None:
    trees = Trees()
    trees_of = {pattern: tree for pattern in patterns if (tree := read(trees, *pattern)) is not None}
    found = classes_of(trees, trees_of, asked(trees), taken)
    for met, name in found.items():
        assert name not in taken | {""}
        assert met == {pattern for pattern in trees_of if matches(pattern[0], name, pattern[1])}
    for letters in (letters for size in range(1, 4) for letters in product(SIGNS, repeat=size)):
        name = "".join(letters)
        met = frozenset(pattern for pattern in trees_of if matches(pattern[0], name, pattern[1]))
        assert name in taken or met in found, (name, met)


IDS = st.text("au:/.@ -*é", max_size=6)
SPIFFE = st.text("a/.@A_", max_size=8).map(lambda text: f"spiffe://{text}")


@tries(100)
@given(name=st.builds("{}:{}".format, st.sampled_from(["user", "workload", "agent", "group", "use"]), IDS | SPIFFE))
def test_the_principals_are_those_that_can_be_named(name: str) -> None:
    trees = Trees()
    assert holds(trees, principals(trees), name) is is_principal(name)


@tries(100)
@given(name=st.builds("{}/{}".format, st.sampled_from(["dataset", "model", "data"]), st.text("a1/.@-_A*:", max_size=7)))
def test_the_resources_are_those_that_can_be_named(name: str) -> None:
    trees = Trees()
    assert holds(trees, resources(trees, ("dataset", "data")), name) is (
        is_resource(name) and not name.startswith("model")
    )
    for pattern in ("dataset/a", "dataset/*", "dataset/**", "data/a/**@1", "data/*/a@1"):
        if is_resource(name):
            assert holds(trees, language(trees, MEMBER, pattern), name) is member_match(name, pattern)


NETWORKS = st.sampled_from(
    [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.0.0/31",
        "10.1.0.1",
        "::/0",
        "::ffff:10.1.0.0/112",
        "::/95",
        "2001:db8::/32",
        "::1",
    ]
)
ADDRESSES = (
    "10.0.0.1",
    "10.1.0.0",
    "10.1.0.1",
    "10.1.0.2",
    "11.0.0.0",
    "::1",
    "::2",
    "2001:db8::7",
    "2001::",
    "::ffff:10.1.0.1",
)


@tries(60)
@given(networks=st.sets(NETWORKS), taken=st.sets(st.sampled_from(ADDRESSES)))
def test_of_every_class_of_addresses_one_is_found(networks: set[str], taken: set[str]) -> None:
    found = dict(address_classes(networks, taken))
    for met, name in found.items():
        assert name not in taken
        assert met == {text for text in networks if matches("ipMatch", name, text)}
    for name in ADDRESSES:
        assert parse_address(name) is not None
        assert frozenset(text for text in networks if matches("ipMatch", name, text)) in found


@pytest.mark.parametrize("text", ["(?i)é$", "(a{60}){200}$", "a{101}$", "(?-i:a)$"])
def test_what_is_not_looked_into_is_said(text: str) -> None:
    with pytest.raises((IrregularError, TooManyClassesError)):
        language(Trees(), "regexMatch", text)


def test_patterns_that_tell_too_many_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Trees()
    patterns = {number: language(trees, "regexMatch", f".*{number}.*") for number in range(10, 16)}
    assert len(classes_of(trees, patterns, asked(trees))) == 2 ** len(patterns)
    monkeypatch.setattr("pdp.engine.languages.MAX_CLASS_STEPS", 1_000)
    with pytest.raises(TooManyClassesError):
        classes_of(trees, patterns, asked(trees))
    assert classes_of(trees, {}, NONE) == {}
