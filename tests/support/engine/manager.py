"""What a manager does with an engine, at whichever daemon serves."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio

from tests.support.engine.process import EngineProcess
from tests.support.engine.served import SERVICE, ProxyClient
from tests.support.patience import patience

WITHIN = patience(30.0)


class Manager:
    """What a manager does, at whichever daemon serves."""

    def __init__(self, target: Callable[[], str], engine: EngineProcess, source: EngineProcess) -> None:
        """Take what returns where the proxy is served now."""
        self._target = target
        self.engine = engine
        self.source = source
        """Engine of the volume that is cloned."""

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of the proxy."""
        which = {"address": self.engine.address, "volume_name": "vol1", "engine_name": "vol1-e-0"}
        bare = SERVICE.methods_by_name[method].input_type.name == "ProxyEngineRequest"
        async with grpc.aio.insecure_channel(self._target()) as channel:
            return await ProxyClient(channel).call(
                method, which if bare else {"proxy_engine_request": which} | fields
            )

    async def settled(self, method: str, **fields: Any) -> None:
        """Wait until every replica says that something is complete."""
        status: Any = {}
        try:
            async with asyncio.timeout(WITHIN):
                while {each.state for each in status.values()} != {"complete"}:
                    status = (await self.call(method, **fields)).status
        except TimeoutError:
            raise AssertionError(f"{method} is not settled: {dict(status)}") from None

    async def states(self, method: str, **fields: Any) -> set[str]:
        """Return what the replicas say of something."""
        return {each.state for each in (await self.call(method, **fields)).status.values()}

    async def modes(self) -> dict[str, str]:
        """Return the modes of the replicas, by name."""
        return {name: each["mode"] for name, each in (await self.engine.tell(look=True)).items()}

    async def snapshots(self) -> dict[str, bool]:
        """Return the snapshots of a whole volume, and whether they are marked."""
        first, *others = (await self.engine.tell(look=True)).values()
        assert (first["mode"], first["rebuilding"]) == ("RW", False)
        assert all(each == first for each in others)
        snapshots: dict[str, bool] = first["snapshots"]
        return snapshots
