"""What a call of the proxy is about, beside the engine, and what one of the disk service is about.

And why one has failed, if its answer says so.
"""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from instance_manager.pb.imrpc.proxy_pb2 import RemountVolumeRequest

LONGEST = 256
"""Longest subject, in characters: a request may name many snapshots."""
_SPECIAL = re.compile(r"""[\s=,'"]|\A\Z""")
_ENGINE = "proxy_engine_request"
_PARTS = (_ENGINE, "disk_name")
"""One of these fields is in every request that has a subject, but for `RemountVolumeRequest`."""
_TOLD = frozenset(
    {
        "backup_name",
        "count",
        "disk_name",
        "disk_path",
        "disk_uuid",
        "enabled",
        "from_engine_name",
        "frontend",
        "limit",
        "mode",
        "name",
        "names",
        "replica_address",
        "replica_name",
        "restore",
        "size",
        "snapshot_name",
        "volume_name",
    }
)
"""The fields that say which replica, snapshot or backup is meant, and what is set. None has credentials."""


def subject_of(request: Any) -> str:
    """Return the subject of a request to the proxy or about a disk, as FIELD=VALUE; empty of any other."""
    if not isinstance(request, Message):
        return ""
    known = any(each in request.DESCRIPTOR.fields_by_name for each in _PARTS)
    if not known and not isinstance(request, RemountVolumeRequest):
        return ""
    return " ".join(_words(request))[:LONGEST]


def task_error(response: Any) -> str:
    """Return why what was asked for has failed, if that is in the answer, as for a restore; else nothing."""
    told: bytes = getattr(response, "taskError", b"")
    return told.decode(errors="replace")


def _words(message: Message) -> Iterator[str]:
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated and field.name != _ENGINE:
            yield from _words(value)
        elif field.name in _TOLD and (value or isinstance(value, int)):
            yield f"{field.name}={_text(field, value)}"


def _text(field: Any, value: Any) -> str:
    if field.is_repeated:
        return ",".join(map(_quoted, value))
    if field.enum_type and value in field.enum_type.values_by_number:
        return str(field.enum_type.values_by_number[value].name)
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Return a text that cannot be taken for several fields or values."""
    return text if text.isprintable() and not _SPECIAL.search(text) else repr(text)
