"""Runs the actions that the lifecycle decides on, and reports each outcome as an event."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from instance_manager.app.interfaces import CannotExecuteError, Logs, Readiness, Spawner, SpawnRequest
from instance_manager.app.supervised_process import SupervisedProcess, Waiting
from instance_manager.core import actions, events
from instance_manager.core.adoption import recovery_metadata
from instance_manager.core.process import Body
from instance_manager.core.spec import command_line
from instance_manager.platform.clock import Clock

log = structlog.get_logger(__name__)


class ActionRunner:
    """Runs actions on the machine; every outcome is reported as an event."""

    def __init__(
        self,
        *,
        grace: float,
        ready_within: Callable[[SupervisedProcess], float],
        retry_interval: float,
        spawner: Spawner,
        readiness: Readiness,
        logs: Logs,
        clock: Clock,
        report: Callable[[SupervisedProcess, events.Event], None],
    ) -> None:
        self.grace = grace
        """Seconds from the first signal of a stop to SIGKILL."""
        self._ready_within = ready_within
        self._retry_interval = retry_interval
        self._spawner = spawner
        self._readiness = readiness
        self._logs = logs
        self._clock = clock
        self._report = report
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, entry: SupervisedProcess, action: actions.Action) -> None:
        """Run one action. If it fails unexpectedly, the ones after it are run all the same.

        Raises:
            Exception: for `Spawn`, whatever the spawn raises; its caller hears of it.
        """
        if isinstance(action, actions.Spawn):
            self._spawn(entry)
            return
        try:
            self._run_action(entry, action)
        except Exception:
            name, uuid = entry.process.name, entry.process.uuid
            log.exception("action failed", name=name, uuid=uuid, action=action)

    def _run_action(self, entry: SupervisedProcess, action: actions.Action) -> None:
        match action:
            case actions.AwaitReady():
                self._await_ready(entry)
            case actions.Signal(name, session):
                if entry.child is not None:
                    entry.child.signal(name, session=session)
            case actions.StartTimer(timer):
                self.start_timer(entry, self.grace if timer is actions.Timer.GRACE else self._retry_interval)
            case actions.KillTree(retry):
                self._run(self._kill_tree(entry, self._retry_interval if retry else 0))

    def start_timer(self, entry: SupervisedProcess, delay: float) -> None:
        """Set the timer of a process, in seconds from now."""
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = self._clock.call_later(delay, lambda: self._stop_timed_out(entry))

    def _spawn(self, entry: SupervisedProcess) -> None:
        process = entry.process
        with self._logs.writer(process.name) as output:
            entry.logs = True
            request = SpawnRequest(
                name=process.name,
                uuid=process.uuid,
                command=command_line(process.spec, process.ports),
                recovery_metadata=recovery_metadata(process, entry.replaces),
                output=output,
            )
            try:
                entry.child = self._spawner.spawn(
                    request, lambda status: self._report(entry, events.Exited(status))
                )
            except CannotExecuteError as error:
                self._report(entry, events.SpawnFailed(str(error)))
                return
        self._report(entry, events.Spawned(entry.child.identity))

    def _await_ready(self, entry: SupervisedProcess) -> None:
        launching = entry.child is not None and entry.child.launching
        if entry.process.ports is None and not launching:
            entry.readiness = self._clock.call_later(0, lambda: self._report(entry, events.Ready()))
        else:
            entry.readiness = self._run(self._report_ready(entry))

    async def _report_ready(self, entry: SupervisedProcess) -> None:
        since = self._clock.now()

        def tell(missing: str) -> None:
            entry.waiting = Waiting(since, f"its health service to say SERVING: {missing}")

        try:
            reason = await self._missing(entry, tell)
        except Exception as error:
            log.exception("readiness check failed", name=entry.process.name, uuid=entry.process.uuid)
            reason = f"readiness check failed: {error}"
        self._report(entry, events.Ready() if reason is None else events.NotReady(reason))

    async def _missing(self, entry: SupervisedProcess, tell: Callable[[str], None]) -> str | None:
        """Wait until a process is ready; return in words what was missing when there was no time left."""
        process, child, within = entry.process, entry.child, self._ready_within(entry)
        if child is not None and child.launching:
            try:
                async with asyncio.timeout(within):
                    if failure := await child.launched():
                        return failure
            except TimeoutError:
                return f"it has not executed its program within {within:g} s"
        if process.ports is None or process.identity is None:
            return None
        return await self._readiness.wait(process.ports.start, within, process.identity.pid, tell)

    def _stop_timed_out(self, entry: SupervisedProcess) -> None:
        entry.timer = None
        if entry.process.body is Body.ALIVE and entry.child is not None:
            self._report(entry, events.StopTimedOut(entry.child.describe()))

    async def _kill_tree(self, entry: SupervisedProcess, delay: float) -> None:
        if delay:
            waited = asyncio.Event()
            self._clock.call_later(delay, waited.set)
            await waited.wait()
        try:
            remains = await entry.child.end_tree() if entry.child is not None else None
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("search for descendants failed", name=entry.process.name)
            remains = f"looking for descendants failed: {error}"
        self._report(entry, events.TreeGone() if remains is None else events.TreeRemains(remains))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("supervision failed", exc_info=error)
