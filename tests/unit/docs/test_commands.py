"""Every command line that a page shows to be pasted is one that our commands read, and every command and option named is there.

What they print is held elsewhere, where a page promises it: the tutorials and recipes are run as they stand.
"""

import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import COMMANDS, ROOT, accepted

PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(r"^ *```(?:console|sh)\b[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:pdp|pdp-sidecar) [^`]+)`")
_ENDS = re.compile(r"[|&;<>()]+")


def pasted(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a page's blocks, without the shell's own."""
    for block in _BLOCK.findall(page.read_text("utf-8")):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            written = re.sub(r"\$\(.*\)", "made", line.strip().removeprefix("$ ")).replace(" 2>", " >")
            if re.match(r"(?:.*\bdo |.*[;&|] |(?:\w+=\S+ )*)pdp(?:-sidecar)? ", written):
                yield from _simple(written)


def _simple(line: str) -> Iterator[list[str]]:
    tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    words: list[str] = []
    for token in [*tokens, ";"]:
        if not _ENDS.fullmatch(token):
            words.append(token)
            continue
        while words and (words[0] == "do" or re.match(r"\w+=", words[0])):
            words.pop(0)
        if words and words[0] in COMMANDS:
            yield words
        words = []


def named(page: Path) -> Iterator[str]:
    """Yield each command in a page's text, as it is written there."""
    yield from _INLINE.findall(re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL))
    yield from (" ".join(words) for words in pasted(page) if "…" in words)


def found(words: list[str]) -> Any:
    """Return the command that the first words name."""
    command, rest = COMMANDS[words[0]], words[1:]
    while hasattr(command, "resolve_command") and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        _, command, rest = command.resolve_command(command.context_class(command), rest)
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_to_be_pasted_is_read(page: Path) -> None:
    for words in pasted(page):
        if "…" not in words:
            accepted(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    for text in named(page):
        for words in product(*(word.split("|") for word in text.split())):  # `pdp role grant|revoke` names two
            command = found(list(words))
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", text)) <= known, text


def test_the_pages_show_and_name_many() -> None:
    assert sum(1 for page in PAGES for _ in pasted(page)) > 80
    assert sum(1 for page in PAGES for _ in named(page)) > 140
