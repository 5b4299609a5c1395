"""What a request says, read once and strictly: path, query and body.

MLflow reads more than one spelling of a field (`runUuid`, `run_uuid`, `run_id`), a body on a GET without a query, and the last
of a key that stands twice. Whatever two readers could take for two things is refused.

Source: ENFORCEMENT.md 3.5; FAILURE.md N4.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from sidecar.bodies import BadBody, strict_object
from sidecar.limits import LIMITS

_DECIDING: Final = (
    "alias",
    "artifact_directory_path",
    "artifact_file_path",
    "artifact_location",
    "archive_existing_versions",
    "experiment_id",
    "experiment_ids",
    "experiment_name",
    "max_results",
    "metrics",
    "model_id",
    "models",
    "name",
    "page_token",
    "path",
    "run_id",
    "run_ids",
    "run_uuid",
    "source",
    "source_run_id",
    "stage",
    "version",
)
REPEATED: Final = frozenset({"experiment_ids", "run_ids", "order_by", "stages"})
_JSON: Final = re.compile(r'application/json(; *charset="?utf-8"?)?', re.IGNORECASE)


def _folded(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.casefold())


_BY_FOLDED: Final = {_folded(key): key for key in _DECIDING}


class RefusedError(Exception):
    """A request on which nothing can be decided.

    Args:
        why: For the record.
        tell: The caller may know it: it says nothing but what their own request said.
    """

    def __init__(self, why: str, *, tell: bool = True) -> None:
        super().__init__(why)
        self.why, self.tell = why, tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A request's own words.

    Attributes:
        values: Query or body, by field.
        found: What stood in the path's places.
    """

    values: Mapping[str, Any]
    found: tuple[str, ...] = ()

    def text(self, key: str) -> str:
        """Return the text under `key`.

        Raises:
            RefusedError: There is none.
        """
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise RefusedError(f"`{key}` is missing, or no text")
        return value

    def optional(self, key: str) -> str:
        """Return the text under `key`; empty: none, or an empty one, which MLflow takes for none.

        Raises:
            RefusedError: It is no text.
        """
        return self.text(key) if self.values.get(key) not in {None, ""} else ""

    def texts(self, key: str) -> list[str]:
        """Return the list of texts under `key`, which is never empty: MLflow would take that for everything.

        Raises:
            RefusedError: There is none.
        """
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise RefusedError(f"`{key}` is missing, or no list of texts")
        return value

    def objects(self, key: str) -> list[Mapping[str, Any]]:
        """Return the list of objects under `key`; empty if there is none.

        Raises:
            RefusedError: It is no such list.
        """
        value = self.values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise RefusedError(f"`{key}` is no list of objects")
        return value


def of_query(query: str, *, repeated: frozenset[str] = REPEATED) -> Mapping[str, Any]:
    """Return what a query says.

    Raises:
        RefusedError: Two readers could take it for two things.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=LIMITS.query_fields,
        )
    except ValueError:
        raise RefusedError("the query is no query") from None
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in repeated:
            found.setdefault(key, []).append(value)
        elif key in found:
            raise RefusedError("a key of the query stands twice")
        else:
            found[key] = value
    return _one_spelling(found)


def of_body(body: bytes, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what a body says; an empty one says nothing.

    Raises:
        RefusedError: It is encoded, no JSON object, or could be taken for two things.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError("an encoded body")
    if not body:
        return {}
    if not _JSON.fullmatch(headers.get("content-type", "")):
        raise RefusedError("the body is not application/json")
    parsed = strict_object(body)
    if isinstance(parsed, BadBody):
        raise RefusedError(f"the body is {parsed.why}")
    return _one_spelling(parsed)


def _one_spelling(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in values:
        meant = _BY_FOLDED.get(_folded(key), key)
        if meant != key:  # proto-JSON takes `runId` for `run_id`, and the last of the two
            raise RefusedError(f"another spelling of `{meant}`")
    if values.get("run_uuid") and values.get("run_id") not in {None, "", values["run_uuid"]}:
        raise RefusedError("`run_id` and `run_uuid` name two runs")
    return values
