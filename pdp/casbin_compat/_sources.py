"""Where a model and its rows come from: a path, a text, or an object of the shape that pycasbin's have."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pdp.adapters.casbin_shape import is_adapter, load_rows
from pdp.engine.casbin_text import Model, Row, parse_rows
from pdp.engine.findings import PackRefused, errors
from pdp.engine.text import decode
from pdp.errors import ConfigError

POLICY_NAME: Final = "policy"
_HEADERS: Final[Mapping[str, str]] = {
    "r": "request_definition",
    "p": "policy_definition",
    "g": "role_definition",
    "e": "policy_effect",
    "m": "matchers",
}


def model_text(source: Any) -> str:
    """Return the text of a model: that of a file, the text itself, or one written from an object like `casbin.Model`.

    Raises:
        ConfigError: it is none of these, or cannot be read.
    """
    if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source):
        return _read(Path(source))
    if isinstance(source, str):
        return source
    if isinstance(getattr(source, "model", None), Mapping):
        return "\n".join(_written(source.model)) + "\n"
    raise ConfigError("a model is a path, a text, or an object with the sections of a Casbin model")


def _read(path: Path) -> str:
    try:
        text = decode(path.read_bytes(), file=str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if isinstance(text, str):
        return text
    raise PackRefused((text,))


def _written(sections: Mapping[str, Any]) -> Iterator[str]:
    """Write a model's sections; pycasbin keeps `r.sub` as `r_sub`."""
    tokens = [(letter, token) for letter in "rp" for one in sections.get(letter, {}).values() for token in one.tokens]
    for letter, header in _HEADERS.items():
        if letter not in sections:
            continue
        yield f"[{header}]"
        for key, assertion in sections[letter].items():
            text = assertion.value
            if letter in "em":
                for _, token in tokens:
                    scope, _, name = token.partition("_")
                    text = re.sub(rf"\b{re.escape(token)}\b", f"{scope}.{name}", text)
                text = re.sub(r"\b(p\d*)_eft\b", r"\1.eft", text)
            yield f"{key} = {text}"


def policy_rows(source: Any, model: Model) -> tuple[Row, ...]:
    """Return the rows of a policy: of a CSV file, a CSV text, or whatever an adapter holds; None is no rows.

    Raises:
        ConfigError: it is none of these, or cannot be read.
        PackRefused: a text whose rows are none of this model; every finding is told.
    """
    if source is None:
        return ()
    if is_adapter(source):
        return load_rows(source, file=POLICY_NAME)
    if not isinstance(source, str | Path):
        raise ConfigError("a policy is a path, a text of rows, or an adapter with `load_policy`")
    path = as_path(source)
    rows, found = parse_rows(str(source) if path is None else _read(path), file=str(path or POLICY_NAME), model=model)
    if errors(found):
        raise PackRefused(found)
    return rows


def as_path(source: Any) -> Path | None:
    """Return the path that a source is, or None for a text or an object: a text has a comma or a line break."""
    if isinstance(source, Path):
        return source
    if isinstance(source, str) and "\n" not in source and ("," not in source or Path(source).exists()):
        return Path(source)
    return None
