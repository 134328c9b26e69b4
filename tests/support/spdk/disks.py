"""Disks and backing images of the SPDK service of the tests."""

import uuid
from typing import Any

from google.protobuf import empty_pb2

from instance_manager.pb.spdkrpc import spdk_pb2 as pb
from tests.support.spdk.state import RefusedError, State

EMPTY = empty_pb2.Empty()
SIZE = 1 << 30
BLOCK = 512


class Disks:
    """Methods of SPDKService by their own names, with an underscore before."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _DiskCreate(self, request: Any) -> Any:  # noqa: N802
        if request.disk_name in self._state.tables["Disk"]:
            raise RefusedError("ALREADY_EXISTS", f"disk {request.disk_name} already exists")
        block_size = request.block_size or BLOCK
        made = self._state.tables["Disk"][request.disk_name] = pb.Disk(
            id="8:16",
            uuid=request.disk_uuid or str(uuid.uuid4()),
            path=request.disk_path,
            type="block",
            total_size=SIZE,
            free_size=SIZE // 2,
            total_blocks=SIZE // block_size,
            free_blocks=SIZE // block_size // 2,
            block_size=block_size,
            cluster_size=1 << 20,
            driver=request.disk_driver or "aio",
            name=request.disk_name,
            state="ready",
        )
        self._state.changed("Disk")
        return made

    def _DiskDelete(self, request: Any) -> Any:  # noqa: N802
        found = self._state.entry("Disk", request.disk_name)
        if request.disk_uuid not in {"", found.uuid}:
            raise RefusedError("FAILED_PRECONDITION", f"disk {request.disk_name} has another UUID")
        del self._state.tables["Disk"][request.disk_name]
        self._state.changed("Disk")
        return EMPTY

    def _DiskGet(self, request: Any) -> Any:  # noqa: N802
        return self._state.entry("Disk", request.disk_name)

    def _DiskHealthGet(self, request: Any) -> Any:  # noqa: N802
        found = self._state.entry("Disk", request.disk_name)
        names = [field.name for field in pb.DiskHealthGetResponse.DESCRIPTOR.fields[4:]]
        numbers = {name: number for number, name in enumerate(names, 1)}
        return pb.DiskHealthGetResponse(
            model_number="model",
            serial_number=f"serial of {found.name}",
            firmware_revision="1.0",
            traddr="0000:00:1e.0",
            **numbers,
        )

    def _MetricsGet(self, request: Any) -> Any:  # noqa: N802
        if request.name not in self._state.all_of("Engine"):
            self._state.entry("Disk", request.name)
        return self._state.tables["Metrics"].get(request.name, pb.Metrics(readIOPS=1))

    def _BackingImageCreate(self, request: Any) -> Any:  # noqa: N802
        key = _key(request)
        if key in self._state.tables["BackingImage"]:
            raise RefusedError("ALREADY_EXISTS", f"backing image {request.name} already exists")
        made = self._state.tables["BackingImage"][key] = pb.BackingImage(
            name=request.name,
            backing_image_uuid=request.backing_image_uuid,
            lvs_uuid=request.lvs_uuid,
            size=request.size,
            expectedChecksum=request.checksum,
            currentChecksum=request.checksum,
            progress=100,
            state="ready",
        )
        self._state.changed("BackingImage")
        return made

    def _BackingImageDelete(self, request: Any) -> Any:  # noqa: N802
        self._state.entry("BackingImage", _key(request))
        del self._state.tables["BackingImage"][_key(request)]
        self._state.changed("BackingImage")
        return EMPTY

    def _BackingImageGet(self, request: Any) -> Any:  # noqa: N802
        return self._state.entry("BackingImage", _key(request))

    def _BackingImageList(self, _: Any) -> Any:  # noqa: N802
        return pb.BackingImageListResponse(backing_images=self._state.tables["BackingImage"])


def _key(request: Any) -> str:
    return f"{request.name}-{request.lvs_uuid}"
