"""Connections to engines: kept while they are used, closed when they are not."""

import asyncio
import contextlib

import pytest

from instance_manager.adapters.engine import Channels, channels, engines_over
from instance_manager.app.engine import Controllers
from instance_manager.core.engine import Engine
from instance_manager.core.errors import UpstreamError
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess
from tests.support.patience import patience


async def gone(kept: Channels, engine: EngineProcess) -> None:
    async with asyncio.timeout(patience(30.0)):
        while len(kept):
            await engine.calls()


async def answers(controllers: Controllers, which: Engine) -> bool:
    with contextlib.suppress(UpstreamError):
        return (await controllers.volume(which)).name == "vol1"
    return False


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
    with pytest.raises(UpstreamError):
        await controllers.volume(Engine("127.0.0.1:1", "", ""))
    async with asyncio.timeout(patience(30.0)):
        while "127.0.0.1:1" in kept._connections:  # which was idle later
            await engine.calls()
    assert len(kept) == 1
    assert await engine.tell(pending=True) == ["VolumeGet"]
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await gone(kept, engine)
    await kept.close()


async def test_those_that_are_idle_for_the_longest_are_closed_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "MOST_IDLE", 2)
    background = Background()
    kept = Channels(background)
    controllers = engines_over(kept).controllers
    for port in (1, 2, 3, 4):
        with pytest.raises(UpstreamError):
            await controllers.volume(Engine(f"127.0.0.1:{port}", "", ""))
        assert len(kept) == min(port, 2)
    assert list(kept._connections) == ["127.0.0.1:3", "127.0.0.1:4"]
    await kept.close()
    await background.close()


async def test_an_engine_that_comes_back_at_its_address_is_found_again() -> None:
    kept = Channels(Background())
    controllers = engines_over(kept).controllers
    with EngineProcess() as engine:
        which = Engine(engine.address, "vol1", engine.name)
        await controllers.volume(which)
    with pytest.raises(UpstreamError):
        await controllers.volume(which)
    with EngineProcess("--port", which.address.rpartition(":")[2]):
        async with asyncio.timeout(patience(30.0)):
            while not await answers(controllers, which):
                pass
    await kept.close()
