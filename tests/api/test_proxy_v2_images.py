"""Backing images of the v2 data engine, through the proxy."""

import asyncio
import contextlib
from typing import Any

import grpc.aio
import pytest
from google.protobuf import empty_pb2

from instance_manager.api.proxy.forwards_v2 import IMAGES
from instance_manager.app.engine import v2
from instance_manager.pb.imrpc import proxy_pb2 as pb
from tests.support.engine.served import ProxyClient, nobody, served_proxy
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess

IMAGE = {
    "name": "bi",
    "backing_image_uuid": "u",
    "disk_uuid": "d",
    "size": "7",
    "checksum": "c",
    "from_address": "http://f",
    "src_lvs_uuid": "l",
}
IMAGE_REQUESTS: dict[str, dict[str, Any]] = {
    "SPDKBackingImageCreate": IMAGE,
    "SPDKBackingImageGet": {"name": "bi", "disk_uuid": "d"},
    "SPDKBackingImageList": {},
    "SPDKBackingImageDelete": {"name": "bi", "disk_uuid": "d"},
}


async def test_a_backing_image_lives_through_the_proxy(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    made = await v2_proxy.call("SPDKBackingImageCreate", IMAGE)
    assert await spdk.request("BackingImageCreate") == {
        name if name != "disk_uuid" else "lvs_uuid": value for name, value in IMAGE.items()
    }
    assert made.spec == pb.SPDKBackingImageSpec(
        name="bi", backing_image_uuid="u", disk_uuid="d", size=7, checksum="c"
    )
    fields = {"currentChecksum": "now", "progress": 40, "state": "in-progress", "error_msg": "odd"}
    await spdk.tell(put="BackingImage", name="bi-d", fields=fields)
    told = await v2_proxy.call("SPDKBackingImageGet", IMAGE_REQUESTS["SPDKBackingImageGet"])
    assert told.status == pb.SPDKBackingImageStatus(
        progress=40, state="in-progress", checksum="now", error_msg="odd"
    )
    assert (await v2_proxy.call("SPDKBackingImageList", {})).backing_images == {"bi-d": told}
    code, text = await v2_proxy.error("SPDKBackingImageCreate", IMAGE)
    assert code == "INTERNAL"
    assert text.endswith("code = AlreadyExists desc = backing image bi already exists")
    await v2_proxy.call("SPDKBackingImageDelete", IMAGE_REQUESTS["SPDKBackingImageDelete"])
    assert (await v2_proxy.call("SPDKBackingImageList", {})).backing_images == {}


@pytest.mark.parametrize(
    ("method", "field"), [(name, field) for name, each in IMAGES.items() for field in each.required]
)
async def test_a_backing_image_needs_its_names(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str, field: str
) -> None:
    code, text = await v2_proxy.error(method, IMAGE_REQUESTS[method] | {field: ""})
    assert code == "INVALID_ARGUMENT"
    assert field in text
    assert await spdk.calls() == []


@pytest.mark.parametrize("method", sorted(IMAGES))
async def test_a_failure_about_a_backing_image_is_internal(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str
) -> None:
    await spdk.tell(fail=IMAGES[method].method, code="NOT_FOUND", message="lvol found")
    code, text = await v2_proxy.error(method, IMAGE_REQUESTS[method])
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = NotFound desc = lvol found")


@pytest.mark.parametrize("method", sorted(IMAGES))
async def test_a_list_of_backing_images_fails_fast_without_a_service(method: str) -> None:
    with nobody() as address:
        async with served_proxy(spdk=address) as running:
            code, text = await running.client.error(method, IMAGE_REQUESTS[method])
    assert code == "INTERNAL"
    assert "code = Unavailable" in text
    async with served_proxy() as running:
        code, text = await running.client.error(method, IMAGE_REQUESTS[method])
    assert code == "UNIMPLEMENTED"
    assert text.endswith("start the daemon with --spdk-enabled")


async def watched(spdk: SpdkProcess, number: int) -> None:
    """Wait until so many watch backing images."""
    async with asyncio.timeout(WITHIN):
        while (await spdk.tell(watches=True))["BackingImage"] != number:
            pass


async def test_a_watch_sends_what_the_service_sends(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    watch = v2_proxy.call("SPDKBackingImageWatch", {})
    await watched(spdk, 1)
    for name in ("a", "b"):
        await v2_proxy.call("SPDKBackingImageCreate", IMAGE | {"name": name})
        assert await watch.read() == empty_pb2.Empty()
    watch.cancel()
    await watched(spdk, 0)


async def test_a_watch_goes_on_after_the_service_was_away(
    spdk: SpdkProcess, v2_proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2, "WATCH_PAUSE", 0.01)
    watch = v2_proxy.call("SPDKBackingImageWatch", {})
    for _ in range(2 * v2.WATCH_ATTEMPTS):
        await watched(spdk, 1)
        await v2_proxy.call("SPDKBackingImageCreate", IMAGE)
        await watch.read()
        await spdk.tell(drop="BackingImage", code="UNAVAILABLE")
        await watch.read()  # something may have changed
        await v2_proxy.call("SPDKBackingImageDelete", IMAGE_REQUESTS["SPDKBackingImageDelete"])
    watch.cancel()


async def test_a_watch_of_nobody_ends_after_ten_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2, "WATCH_PAUSE", 0.01)
    pings = 0
    with nobody() as address:
        async with served_proxy(spdk=address) as running:
            watch = running.client.call("SPDKBackingImageWatch", {})
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in watch:
                    pings += 1
            assert await watch.code() is grpc.StatusCode.INTERNAL
            text = await watch.details()
    assert "failed to watch backing images: rpc error: code = Unavailable" in text
    assert pings == v2.WATCH_ATTEMPTS - 1


async def test_a_watch_that_the_service_does_not_have_ends(
    spdk: SpdkProcess, v2_proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2, "WATCH_PAUSE", 0.0)
    await spdk.tell(fail="BackingImageWatch", code="UNIMPLEMENTED")
    watch = v2_proxy.call("SPDKBackingImageWatch", {})
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in watch:
            pass
    assert "code = Unimplemented" in await watch.details()
    assert (await spdk.calls(watches=True)).count("BackingImageWatch") == v2.WATCH_ATTEMPTS
