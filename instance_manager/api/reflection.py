"""Server reflection that is as complete as that of a server in Go or C++."""

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto


class SymbolPool:
    """The default descriptor pool, with two additions for reflection.

    The default pool finds services by name, but not methods. And the code generated for Python omits the JSON
    names of fields, without which grpcurl prints fields under their proto names.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileByName(self, name: str) -> Any:  # noqa: N802 - the name is the pool's
        """Return a file.

        Raises:
            KeyError: if there is none of this name.
        """
        return _File(self._pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the name is the pool's
        """Return the file that has a message, enum, service, method or field.

        Raises:
            KeyError: if none has it.
        """
        try:
            return _File(self._pool.FindFileContainingSymbol(symbol))
        except KeyError:
            return _File(self._pool.FindMethodByName(symbol).containing_service.file)


class _File:
    """A file's descriptor whose fields have JSON names."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor
        self.name = descriptor.name

    @property
    def dependencies(self) -> list["_File"]:
        return [_File(each) for each in self._descriptor.dependencies]

    def CopyToProto(self, proto: FileDescriptorProto) -> None:  # noqa: N802 - the name is the descriptor's
        self._descriptor.CopyToProto(proto)
        _name_fields(proto.extension)
        for message in proto.message_type:
            _name_fields_of(message)


def _name_fields_of(message: DescriptorProto) -> None:
    _name_fields(message.field)
    _name_fields(message.extension)
    for nested in message.nested_type:
        _name_fields_of(nested)


def _name_fields(fields: Iterable[FieldDescriptorProto]) -> None:
    for field in fields:
        if not field.json_name:
            first, *rest = field.name.split("_")
            field.json_name = first + "".join(word[:1].upper() + word[1:] for word in rest)
