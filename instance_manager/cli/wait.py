"""`instance-manager process wait`: waits for a state of a process, by events and not by polling."""

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

import grpc
from grpc.aio import AioRpcError

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.render import printable
from instance_manager.cli.views import state_of
from instance_manager.cli.watch import BEGUN_SECONDS
from instance_manager.client import LOST, Client
from instance_manager.platform.backoff import exponential_backoff

if TYPE_CHECKING:
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse

GONE = "deleted"
"""The state of a process that is not listed."""


class Goal(StrEnum):
    """What to wait for."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


_MET = {
    Goal.RUNNING: {"running"},
    Goal.STOPPED: {"stopped", GONE},
    Goal.DELETED: {GONE},
}
_NEVER = {
    Goal.RUNNING: {"stopping", "stopped", "error", GONE},
    Goal.STOPPED: {"error"},
    Goal.DELETED: set[str](),
}
"""The states from which the goal cannot be reached."""

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
"""Seconds between attempts to connect again."""


class Waiter:
    """Waits for one process, and keeps its present state."""

    def __init__(self, name: str, goal: Goal, uuid: str = "") -> None:
        """Without a UUID, wait for the process that has the name when the wait starts."""
        self._name = name
        self._goal = goal
        self._uuid = uuid
        self._by_name = not uuid
        self._answered = False
        self.seen = "unknown"

    async def wait(self, client: Client, within: float) -> None:
        """Return when the goal is reached.

        Raises:
            Failure: if it can no longer be reached, or after `within` seconds.
            AioRpcError: if a call fails, except for a connection lost after the first answer.
        """
        try:
            async with asyncio.timeout(within):
                await self._wait(client)
        except TimeoutError:
            raise Failure(
                f"cannot wait any longer for {self._name} to be {self._goal}: "
                f"after {within:g} s it is {self.seen}",
                ExitCode.TIMEOUT,
            ) from None

    async def _wait(self, client: Client) -> None:
        """Observe the process until the goal is reached, again after each lost connection."""
        for delay in exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY):
            if await self._survives(client):
                return
            await asyncio.sleep(delay)

    async def _survives(self, client: Client) -> bool:
        """Observe the process until the goal is reached; return False if the connection is lost before."""
        try:
            return await self._observe(client)
        except AioRpcError as error:
            if not self._answered or error.code() not in LOST:
                raise
            return False

    async def _observe(self, client: Client) -> bool:
        """Return whether the goal is reached before the daemon ends the stream of changes."""
        # First the watch, then the present state, so that no change is missed.
        changes = await client.process_watch().accepted(BEGUN_SECONDS)
        if self._met(await self._listed(client)):
            return True
        async for change in changes:
            if change.spec.name != self._name:
                continue
            if change.status.uuid == self._uuid:
                met = self._met(await self._latest(client, change))
            else:
                # Another process has the name, or had it before: the list says which.
                met = self._met(await self._listed(client))
            if met:
                return True
        return False

    def _met(self, process: "ProcessResponse | None") -> bool:
        self.seen = GONE if process is None else state_of(process)
        if self.seen in _NEVER[self._goal]:
            why = "" if process is None else printable(process.status.error_msg)
            raise Failure(
                f"cannot wait for {self._name} to be {self._goal}: "
                f"{'no such process is listed' if self.seen == GONE else f'it is {self.seen}'}"
                f"{why and f' ({why})'}",
                ExitCode.IMPOSSIBLE,
            )
        return self.seen in _MET[self._goal]

    async def _listed(self, client: Client) -> "ProcessResponse | None":
        """Return the process, None if it is not listed."""
        process = None
        try:
            process = await client.process_get(self._name)
        except AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        self._answered = True
        if process is None:
            return None
        # To wait for a name to run, any process with that name will do.
        if process.status.uuid != self._uuid and self._uuid and not self._takes_successor:
            return None
        self._uuid = process.status.uuid
        return process

    @property
    def _takes_successor(self) -> bool:
        return self._by_name and self._goal is Goal.RUNNING

    async def _latest(self, client: Client, change: "ProcessResponse") -> "ProcessResponse":
        """Return a change, or if it is the end of a process that was replaced, its successor."""
        if not self._takes_successor or state_of(change) not in _NEVER[self._goal]:
            return change
        process = await self._listed(client)
        return change if process is None or process.status.uuid == change.status.uuid else process
