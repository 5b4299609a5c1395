"""Records of decisions as other systems read them: with names masked, and as events of the Open Cybersecurity Schema Framework.

Source: OCSF 1.6.0, class 6003 API Activity with the profile `security_control`.
"""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

_OCSF_VERSION: Final = "1.6.0"
_CLASS: Final = 6003
_CATEGORY: Final = 6
_ACTIVITIES: Final = {"Unknown": 0, "Create": 1, "Read": 2, "Update": 3, "Delete": 4, "Other": 99}
_VERBS: Final = {
    **dict.fromkeys(
        ("create", "register", "register_version", "snapshot", "import", "add", "propose", "append"), "Create"
    ),
    **dict.fromkeys(
        (
            "read",
            "list",
            "read_metadata",
            "download",
            "export",
            "read_result",
            "read_config",
            "observe",
            "verify",
            "presign",
        ),
        "Read",
    ),
    **dict.fromkeys(
        ("write", "update", "tag", "log", "configure", "promote", "deploy", "undeploy", "approve", "scale", "activate"),
        "Update",
    ),
    **dict.fromkeys(("delete", "remove", "retire", "archive"), "Delete"),
}
"""Which of the schema's four activities a verb is; any other, such as `invoke`, is `Other` with its own name beside it."""
_USER_TYPES: Final = {"user": (1, "User")}
_UNMAPPED: Final = (
    "actors", "workload", "serves", "attributes", "claims", "credential", "supports", "determining", "obligations", "door",
    "caller", "world_seq", "candidate", "now_ms", "staleness_ms", "clock_off", "resource_digest", "digest",
)  # fmt: skip
_PSEUDONYM_CHARS: Final = 12


class Mask(StrEnum):
    """What an export hides."""

    PRINCIPALS = "principals"
    ATTRIBUTES = "attributes"


def masked(record: Mapping[str, Any], masks: Collection[Mask], key: bytes) -> dict[str, Any]:
    """Return a record without what `masks` hide; a name becomes a pseudonym made with `key`.

    Records of other kinds than decisions name processes and no people; what of a stream's is free text goes.
    """
    shown = dict(record)
    if masks and "detail" in shown:
        shown["detail"] = ""  # free text: it may repeat any of it
    if shown.get("kind") != "decision":
        return shown
    if Mask.PRINCIPALS in masks:
        shown["principal"] = _pseudonym(shown["principal"], key)
        shown["caller"] = _pseudonym(shown["caller"], key)
        shown["workload"] = _pseudonym(shown["workload"], key)
        shown["groups"] = [_pseudonym(group, key) for group in shown["groups"]]
        shown["actors"] = [_actor(actor, key) for actor in shown["actors"]]
        shown["credential"] = {}  # its numbers name whoever bears it
    if Mask.ATTRIBUTES in masks:
        for name in ("attributes", "claims"):
            shown[name] = dict.fromkeys(shown[name], "masked")
    return shown


def _actor(actor: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    return {
        "principal": _pseudonym(actor["principal"], key),
        "groups": [_pseudonym(group, key) for group in actor["groups"]],
    }


def _pseudonym(name: str, key: bytes) -> str:
    """Return a name of the same kind that is the same for the same name, and tells nothing without the key."""
    if not name:
        return ""
    mac = hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:_PSEUDONYM_CHARS]
    kind, colon, _ = name.partition(":")
    return f"{kind}:masked-{mac}" if colon else f"masked-{mac}"  # without a kind, all of it is the name


def ocsf(record: Mapping[str, Any], chain: str) -> dict[str, Any]:
    """Return a decision's record as an API Activity event."""
    allowed = record["effect"] == "allow"
    verb = record["action"].partition(".")[2]
    activity = _VERBS.get(verb, "Other" if verb else "Unknown")
    return {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": _ACTIVITIES[activity],
        "activity_name": verb if activity == "Other" else activity,
        "type_uid": _CLASS * 100 + _ACTIVITIES[activity],
        "time": record["time_ms"],
        "severity_id": 1 if allowed else 2,
        "status_id": 1 if allowed else 2,
        "status_code": record["reason"],
        "status_detail": record["detail"],
        "action_id": 1 if allowed else 2,
        "disposition_id": 1 if allowed else 2,
        "is_alert": False,
        "metadata": _metadata(record, chain),
        "actor": {"user": _user(record["principal"], record["groups"])},
        "api": {"operation": record["action"], "service": {"name": "portcullis"}},
        "src_endpoint": {"name": record["workload"] or record["caller"] or record["door"]},
        "resources": [_resource(record)] if record["resource"] else [],
        "authorizations": [{"decision": record["effect"], "policy": {"uid": rule}} for rule in record["determining"]],
        "policy": {"name": "portcullis", "version": str(record["world_seq"])},
        "unmapped": {name: record[name] for name in _UNMAPPED if record.get(name) not in (None, "", [], {})},
    }


def _metadata(record: Mapping[str, Any], chain: str) -> dict[str, Any]:
    return {
        "version": _OCSF_VERSION,
        "product": {"name": "Portcullis", "vendor_name": "Portcullis"},
        "profiles": ["security_control"],
        "uid": record["decision_id"],
        "log_name": chain,
        "sequence": record["n"],
    }


def _user(name: str, groups: Collection[str]) -> dict[str, Any]:
    kind = name.partition(":")[0]
    type_id, type_name = _USER_TYPES.get(kind, (99, kind) if kind else (0, "Unknown"))
    return {
        "uid": name or "unknown",
        "name": name.partition(":")[2] or "unknown",
        "type_id": type_id,
        "type": type_name,
        "groups": [{"name": group} for group in groups],
    }


def _resource(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uid": record["resource"],
        "name": record["resource"].partition("@")[0],
        "type": record["resource"].partition("/")[0],
        "version": record["version"],
    }
