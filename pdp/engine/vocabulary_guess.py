"""The vocabulary that rows need, read from the rows themselves: for policies that come without one.

Types and verbs are what the rows name; the types of attributes are guessed from how conditions use them, for whoever
imports to look over.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from pdp.engine.casbin_text import Model, Row
from pdp.engine.expression import Call, Field, walk
from pdp.engine.functions import action_alternatives

NO_WORDS: Final = "types: {}\nattributes: {}\n"
_NAME: Final = re.compile(r"(?<![\w.'\"])[a-z]\w*(?:\.[a-z]\w*)+(?!\w*\()")
_STRING: Final = re.compile(r"""'[^']*'|"[^"]*\"""")
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def derive_vocabulary(model: Model, rows: Sequence[Row]) -> str:
    """Return a `vocabulary.yaml` with every type, verb and attribute that the rows name; types of attributes are guessed."""
    verbs: dict[str, set[str]] = {}
    texts: list[str] = []
    for function, value in _cells(model, rows):
        if function == "actionMatch":
            for action in action_alternatives(value):
                kind, _, verb = action.partition(".")
                if _WORD.fullmatch(kind):
                    verbs.setdefault(kind, set()).update({verb} if _WORD.fullmatch(verb) else ())
        elif function == "resourceMatch" and _WORD.fullmatch(value.partition("/")[0]) and "/" in value:
            verbs.setdefault(value.partition("/")[0], set())
        elif function == "when":
            texts.append(value)
    attributes = {name: _guess(name, texts) for name in sorted(set(_names(texts)))}
    return _written(
        "types", {kind: f"{{verbs: [{', '.join(sorted(verbs[kind]))}]}}" for kind in sorted(verbs)}
    ) + _written("attributes", {name: f"{{type: {kind}}}" for name, kind in attributes.items()})


def _cells(model: Model, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield each value of a row with the function that the matcher hands it to."""
    for context in model.contexts.values():
        for node in walk(context.matcher):
            if not isinstance(node, Call):
                continue
            for argument in node.arguments:
                if isinstance(argument, Field) and argument.scope == context.section:
                    at = context.policy.index(argument.name)
                    yield from (
                        (node.function, row.fields[at])
                        for row in rows
                        if row.section == context.section and at < len(row.fields)
                    )


def _names(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from _NAME.findall(_STRING.sub("''", text))


def _guess(name: str, texts: Sequence[str]) -> str:
    """Return the type that the conditions seem to give an attribute; whoever imports looks it over."""
    own = re.escape(name)
    looks = {
        "list": rf"size\({own}\)|\bin {own}\b",
        "double": rf"{own} *[<>=!]+ *-?\d+\.\d|\d\.\d+ *[<>=!]+ *{own}\b",
        "int": rf"{own} *[<>=!]+ *-?\d+\b(?!\.\d)|\b\d+ *[<>=!]+ *{own}\b",
        "timestamp": rf"{own} *[<>=!]+ *(?:timestamp\(|now\b)|now *[<>=!]+ *{own}\b",
        "string": rf"{own} *[=!]= *['\"]|{own}\.(?:startsWith|endsWith|contains|matches)|['\"] *[=!]= *{own}\b|{own} in ",
    }
    for kind, look in looks.items():
        if any(re.search(look, text) for text in texts):
            return kind
    return "bool"


def _written(key: str, entries: dict[str, str]) -> str:
    if not entries:
        return f"{key}: {{}}\n"
    return f"{key}:\n" + "".join(f"  {name}: {value}\n" for name, value in entries.items())
