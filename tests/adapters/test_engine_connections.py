"""Connections to engines: kept while they are used, closed when they are not."""

import asyncio

import pytest
from google.protobuf import empty_pb2

from instance_manager.adapters.engine import Channels, Timeouts, channels, engines_over
from instance_manager.core.engine import Engine
from instance_manager.core.errors import UpstreamError
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess
from tests.support.patience import patience
from tests.support.proxy import proxied


async def gone(kept: Channels, engine: EngineProcess) -> None:
    async with asyncio.timeout(patience(30.0)):
        while len(kept):
            await engine.calls()


async def test_a_connection_is_kept_for_the_next_call_and_closed_when_idle(engine: EngineProcess) -> None:
    kept = Channels(Background(), idle_seconds=0.3)
    controllers = engines_over(kept).controllers
    which = Engine(engine.address, "vol1", engine.name)
    for _ in range(3):
        await controllers.volume(which)
        assert len(kept) == 1
    await gone(kept, engine)
    await controllers.volume(which)
    await kept.close()
    assert not len(kept)


async def test_a_connection_with_a_call_is_not_idle(engine: EngineProcess) -> None:
    kept = Channels(Background(), idle_seconds=0.01)
    await engine.tell(hang="VolumeGet", at="controller")
    controllers = engines_over(kept).controllers
    which = Engine(engine.address, "", "")
    hanging = asyncio.create_task(controllers.volume(which))
    await engine.called("VolumeGet")
    await controllers.replicas(which)
    other = engine.replicas["vol1-r-1"].removeprefix("tcp://")
    with pytest.raises(UpstreamError):
        await controllers.volume(Engine(other, "", ""))
    async with asyncio.timeout(patience(30.0)):
        while (other, False) in kept._connections:  # which was idle later
            await engine.calls()
    assert len(kept) == 1
    assert await engine.tell(pending=True) == ["VolumeGet"]
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await gone(kept, engine)
    await kept.close()


async def test_those_that_are_idle_for_the_longest_are_closed_when_there_are_many(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MOST_IDLE", 2)
    background = Background()
    kept = Channels(background)
    controllers = engines_over(kept).controllers
    addresses = [each.removeprefix("tcp://") for each in (*engine.replicas.values(), await engine.add("r-3"))]
    for count, address in enumerate(addresses, 1):
        with pytest.raises(UpstreamError, match="Unimplemented"):  # no controller is there
            await controllers.volume(Engine(address, "", ""))
        assert len(kept) == min(count, 2)
    assert list(kept._connections) == [(address, False) for address in addresses[1:]]
    await kept.close()
    await background.close()


async def test_an_engine_that_is_back_is_found_by_the_first_call() -> None:
    background = Background()
    kept = Channels(background)
    controllers = engines_over(kept).controllers
    with EngineProcess() as engine:
        which = Engine(engine.address, "vol1", engine.name)
        await controllers.volume(which)
    for _ in range(20):  # polled while it is away, as managers do: no attempt makes the next one wait
        with pytest.raises(UpstreamError):
            await controllers.volume(which)
        assert not len(kept)
    with EngineProcess("--port", which.address.rpartition(":")[2]):
        assert (await controllers.volume(which)).name == "vol1"
        await kept.close()
    await background.close()


async def test_a_connection_that_went_silent_is_not_used_for_the_next_call(engine: EngineProcess) -> None:
    background = Background()
    kept = Channels(background)
    controllers = engines_over(kept, Timeouts(call=patience(0.5))).controllers
    async with proxied(int(engine.address.rpartition(":")[2])) as network:
        which = Engine(f"127.0.0.1:{network.port}", "vol1", engine.name)
        await controllers.volume(which)
        await network.cut()  # what was connected is silent; who connects now gets through
        with pytest.raises(UpstreamError, match="DeadlineExceeded"):
            await controllers.volume(which)
        assert (await controllers.volume(which)).name == "vol1"
        await kept.close()
    await background.close()


async def test_a_long_call_notices_that_its_connection_went_silent(engine: EngineProcess) -> None:
    kept = Channels(Background(), keepalive_seconds=0.2, ping_seconds=0.2)
    controllers = engines_over(kept, Timeouts(call=patience(60.0))).controllers
    async with proxied(int(engine.address.rpartition(":")[2])) as network:
        await engine.tell(hang="VolumeGet", at="controller")
        hanging = asyncio.create_task(controllers.volume(Engine(f"127.0.0.1:{network.port}", "", "")))
        await engine.called("VolumeGet")
        await network.cut()
        with pytest.raises(UpstreamError) as error:
            await hanging
        assert error.value.code == "UNAVAILABLE"
        await kept.close()


async def test_a_call_is_not_ended_by_another_that_loses_the_connection(engine: EngineProcess) -> None:
    background = Background()
    kept = Channels(background)
    await engine.tell(hang="VolumeGet", at="controller")
    await engine.tell(fail="MetricsGet", at="controller", code="UNAVAILABLE")
    controllers = engines_over(kept).controllers
    which = Engine(engine.address, "", "")
    hanging = asyncio.create_task(controllers.volume(which))
    await engine.called("VolumeGet")
    with pytest.raises(UpstreamError):
        await controllers.forward(which, "MetricsGet", "failed", empty_pb2.Empty())
    await controllers.replicas(which)
    assert await engine.tell(pending=True) == ["VolumeGet"]
    assert not hanging.done()
    await kept.close()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    await background.close()
