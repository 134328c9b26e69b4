"""The daemon is killed in the middle of each change of an engine; a manager goes on with the next one."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.api.listeners import Offset
from tests.integration.test_proxy import start_engine
from tests.support.engine.manager import WITHIN, Manager
from tests.support.engine.process import EngineProcess
from tests.support.engine.recipes import DONE, NEVER, ON, RECIPES, Recipe
from tests.support.node import Node, on_node

OPTIONS = ("--listen", "127.0.0.1:0")


async def begun(manager: Manager, recipe: Recipe, place: str, method: str, did: str) -> asyncio.Task[None]:
    """Begin a change, and wait until it is at an inner call."""
    engine = manager.engine
    if did == ON:
        await engine.tell(hold=recipe.work)
    await engine.tell(**({"hang": method} if did == NEVER else {"lose": method}), at=place)
    await engine.calls()
    change = asyncio.create_task(manager.call(recipe.method, **recipe.fields(manager)))
    if did == ON and recipe.waits:
        await engine.called(method)
        return change
    async with asyncio.timeout(WITHIN):
        while method not in await engine.tell(pending=True):
            assert not change.done(), change.result()
    return change


async def kill(node: Node) -> None:
    """Let the next daemon serve."""
    await node.kill()
    await node.restart(*OPTIONS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("recipe", RECIPES, ids=[each.name for each in RECIPES])
async def test_a_manager_goes_on_when_the_daemon_was_killed_in_the_middle(
    tmp_path: Path, engine: EngineProcess, recipe: Recipe, full: bool
) -> None:
    """Each inner call was done, or never; with --full, both."""
    async with on_node(tmp_path, *OPTIONS) as node:
        await start_engine(node.daemon, tmp_path)
        await node.daemon.has_descendants(1)
        instances = node.daemon.descendants()
        with EngineProcess(volume="source") as source:
            manager = Manager(lambda: node.daemon.serving[-1]["addresses"][Offset.PROXY], engine, source)
            rounds = [
                (*step, did)
                for number, step in enumerate(recipe.steps)
                for did in ((DONE, NEVER) if full else [(DONE, NEVER)[number % 2]])
            ]
            if recipe.work:
                rounds.append((*recipe.steps[-1], ON))
            for place, method, did in rounds:
                await engine.renew()
                await recipe.before(manager)
                change = await begun(manager, recipe, place, method, did)
                await kill(node)
                with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                    await change
                await engine.tell(work=True)
                await recipe.then(manager, did)
        assert node.daemon.descendants() == instances
