"""Messages made from others that have fields of the same names.

Numbers of fields are never relied upon: messages of the same name have other ones at managers and at SPDK.
"""

from typing import Any, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def copied(kind: type[M], source: Message, **others: Any) -> M:
    """Return a message with the values of all fields that both have by name; `others` are set besides.

    Raises:
        TypeError: if a field has another type there.
    """
    fields: Any = kind.DESCRIPTOR.fields_by_name
    same = {field.name: value for field, value in source.ListFields() if field.name in fields}
    return kind(**same | others)
