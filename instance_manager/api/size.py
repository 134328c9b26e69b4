"""What a message takes of memory, which may be far more than its bytes: each entry of a list is an object."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

ENTRY_BYTES = 256
"""Bytes that an entry of a list or a map counts as, beside its own."""
_FEW_BYTES = 512
"""In so many there are few entries."""


def size_of(message: Any, length: int | None = None) -> int:
    """Return how many bytes a message counts as; `length` are those on the wire, if they are known."""
    length = message.ByteSize() if length is None else length
    return length if length <= _FEW_BYTES else length + ENTRY_BYTES * entries_of(message)


def entries_of(message: Any) -> int:
    """Return the number of entries of all lists and maps of a message."""
    total = 0
    for field, value in message.ListFields():
        if field.is_repeated:
            total += len(value)
            if field.message_type is not None:
                each = value.values() if isinstance(value, Mapping) else value
                total += sum(entries_of(one) for one in each if isinstance(one, Message))
        elif field.message_type is not None:
            total += entries_of(value)
    return total
