"""Parsing owners from text. Anything unknown is an error, as a misread owner makes an orphan."""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import yaml

from instance_manager.orphans.model import Owner, OwnerKind

KINDS = {"Engine": OwnerKind.ENGINE, "Replica": OwnerKind.REPLICA}
"""Kinds of custom resources that own instances."""
LISTS = {"List": "", **{f"{kind}List": kind for kind in KINDS}}
"""Kinds of lists, with the kind of their items, which lists of the Kubernetes API leave out in each item."""

MAX_YAML = 2 << 20
"""Largest size of YAML in bytes, which takes a few seconds; JSON is fifty times as fast."""
MAX_DEPTH = 100
"""Deepest nesting of YAML; its parser in C would overflow the stack instead of raising an error."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InvalidOwnersError(Exception):
    """The text is malformed; the message says where and why."""


def parse(text: bytes) -> list[Owner]:
    """Return the owners in a file: JSON, or one or more documents of YAML.

    Raises:
        InvalidOwnersError: if it is incomplete, or anything but objects of `KINDS` and lists of them.
    """
    if not text.strip():
        raise InvalidOwnersError("it is empty; without owners it has to hold an empty List")
    try:
        documents = _json(text) if text.lstrip()[:1] in b"{[" else _yaml(text)
        if not documents:
            raise InvalidOwnersError("it holds no object")
        found = []
        for number, document in enumerate(documents, start=1):
            where = f"document {number}" if len(documents) > 1 else "the object"
            found += [_owner(item, kind, place) for item, kind, place in _items(document, where)]
    except RecursionError:
        raise InvalidOwnersError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InvalidOwnersError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    return found


def _json(text: bytes) -> list[object]:
    try:
        return [json.loads(text)]
    except json.JSONDecodeError as error:
        raise InvalidOwnersError(
            f"it is no JSON, or not all of it: {error.msg} in line {error.lineno}"
        ) from error


def _yaml(text: bytes) -> list[object]:
    if len(text) > MAX_YAML:
        raise InvalidOwnersError(f"it is more than {MAX_YAML >> 20} MiB of YAML; write JSON")
    try:
        _refuse_depth(text)
        return [document for document in yaml.load_all(text, Loader=_LOADER) if document is not None]
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidOwnersError(f"it is no YAML: {error.problem}{line}") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise InvalidOwnersError(f"it is no YAML: {' '.join(str(error).split())}") from error


def _refuse_depth(text: bytes) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _items(document: object, where: str) -> Iterator[tuple[object, str, str]]:
    """Yield the objects of a document, each with its default kind and its place for error messages."""
    kind = _mapping(document, where).get("kind")
    if not isinstance(kind, str) or kind not in LISTS:
        yield document, "", where
        return
    content = _mapping(document, where)
    metadata = content.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("continue"):
        raise InvalidOwnersError(f"{where} is only a part of a list (metadata.continue): ask without a limit")
    items = content.get("items")
    if not isinstance(items, list):
        raise InvalidOwnersError(f"{where} is a {kind} without a list of items")
    for number, item in enumerate(items, start=1):
        yield item, LISTS[kind], f"item {number} of {where}"


def _owner(item: object, default_kind: str, where: str) -> Owner:
    content = _mapping(item, where)
    kind = content.get("kind") or default_kind
    if not isinstance(kind, str) or kind not in KINDS:
        problem = f"is of kind {_shown(kind)}" if kind else "has no kind"
        raise InvalidOwnersError(f"{where} {problem}: only {' and '.join(KINDS)} own instances")
    metadata = _mapping(content.get("metadata"), f"metadata of {where}")
    name = _text(metadata, "name", f"metadata of {where}")
    if not name:
        raise InvalidOwnersError(f"metadata of {where} has no name")
    where = f"{kind} {name}"
    spec = _mapping(content.get("spec") or {}, f"spec of {where}")
    status = _mapping(content.get("status") or {}, f"status of {where}")
    return Owner(
        name=name,
        kind=KINDS[kind],
        deleting=_is_set(metadata, "deletionTimestamp", f"metadata of {where}"),
        node_id=_text(spec, "nodeID", f"spec of {where}"),
        desired_state=_text(spec, "desireState", f"spec of {where}"),
        owner_id=_text(status, "ownerID", f"status of {where}"),
        current_state=_text(status, "currentState", f"status of {where}"),
        instance_manager=_text(status, "instanceManagerName", f"status of {where}"),
    )


def _mapping(value: object, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidOwnersError(f"{where} has to be an object, not {_shown(value)}")
    return value


def _text(fields: Mapping[Any, Any], key: str, where: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidOwnersError(f"{key} in {where} has to be text, not {_shown(value)}")
    return value


def _is_set(fields: Mapping[Any, Any], key: str, where: str) -> bool:
    """Return whether a time is set; YAML turns an unquoted one into a datetime."""
    value = fields.get(key)
    return isinstance(value, datetime) or bool(_text(fields, key, where))


def _shown(value: object) -> str:
    """Return a value as short text, in JSON terms."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."  # noqa: PLR2004 - enough to find it by
