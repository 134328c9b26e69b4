"""Replacing a process: the new one starts beside the old one, and they are swapped once it runs."""

import asyncio
from dataclasses import replace

import structlog

from instance_manager.app.supervised_process import SupervisedProcess
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InstanceManagerError,
    InvalidArgumentError,
    UnavailableError,
)
from instance_manager.core.events import StopRequested
from instance_manager.core.process import Body, Process, State
from instance_manager.core.spec import ProcessSpec, validate_spec

TERMINATE_SIGNAL = "SIGHUP"
_SHARE = 0.9
"""Part of the time that a caller waits for; the rest is for the answer."""

_GRACE = 1.0
"""Seconds that a new process gets to end that has failed to replace an old one."""

log = structlog.get_logger(__name__)


class Replacer:
    """Replaces processes one at a time per name."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._in_flight: set[str] = set()

    async def replace(self, spec: ProcessSpec, terminate_signal: str, within: float | None = None) -> Process:
        """Start the new process, wait until it runs, give it the name and stop the old one.

        If the binary is the same, nothing is done and the present process is returned. If the caller
        disconnects, the replacement is completed all the same; a repeated call then finds the same binary.

        Args:
            spec: what to run instead.
            terminate_signal: name of the signal that ends the old process.
            within: seconds that the caller waits; None if that is not known. The new process has to be ready
                before that, however long it might take otherwise.

        Raises:
            InvalidArgumentError: if the spec is wrong or the signal is not SIGHUP.
            NotFoundError: if no process has this name.
            AlreadyExistsError: if the old process has changed in between, or is already being replaced.
            DeadlineExceededError: if the new process was not ready in time.
            FailedPreconditionError: if the old process is being deleted, or the new one cannot be executed or
                ended at once.
            PermissionDeniedError: if the binary is not allowed.
            ResourceExhaustedError: if there are too many processes, or no ports or other resources.
            UnavailableError: if the daemon is shutting down.
        """
        validate_spec(spec)
        if terminate_signal != TERMINATE_SIGNAL:
            raise InvalidArgumentError(
                f"cannot end the old process with {terminate_signal!r}: only {TERMINATE_SIGNAL} is possible"
            )
        if self._supervisor.draining:
            raise UnavailableError(f"cannot replace {spec.name}: the instance manager is ending")
        old = self._supervisor.registry.find(spec.name)
        if old.process.deletion_requested:
            raise FailedPreconditionError(f"cannot replace {spec.name}: it is being deleted")
        if old.process.spec.binary == spec.binary:
            return old.process
        if spec.name in self._in_flight:
            raise AlreadyExistsError(
                f"cannot replace {spec.name}: it is being replaced already; ask again later"
            )
        limit = self._supervisor.settings.replace_timeout
        new = self._supervisor.start(
            _completed(spec, old.process.spec),
            replaces=old.process.uuid,
            ready_within=limit if within is None else min(limit, round(_SHARE * within, 1)),
        )
        return await asyncio.shield(self.resume(old, new))

    def resume(self, old: SupervisedProcess, new: SupervisedProcess) -> asyncio.Task[Process]:
        """Complete a replacement whose new process has been started, in a task."""
        name = new.process.name
        self._in_flight.add(name)
        task = asyncio.get_running_loop().create_task(self._carry_through(old, new))
        task.add_done_callback(lambda task: self._done(name, task))
        return task

    def _done(self, name: str, task: asyncio.Task[Process]) -> None:
        self._in_flight.discard(name)
        # The caller may be gone: log the outcome here too, and mark its error as retrieved.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("replacement failed", name=name, reason=str(error))

    async def _carry_through(self, old: SupervisedProcess, new: SupervisedProcess) -> Process:
        before = old.process.state
        outcome = await new.wait_for(lambda p: p.state is not State.STARTING)
        if outcome.state is State.RUNNING:
            outcome = new.process
        if outcome.state is State.RUNNING and not self._changed(old, before):
            self._supervisor.transfer_name(old, new)
            self._supervisor.handle(old, StopRequested(signal=TERMINATE_SIGNAL))
            return new.process
        self._supervisor.handle(new, StopRequested())
        # Nobody has used it yet, and the old one goes on: it need not stay beside it for long.
        self._supervisor.hurry(new, _GRACE)
        raise _why_not(outcome)

    def _changed(self, old: SupervisedProcess, before: State) -> bool:
        same = old.process.state is before or (before, old.process.state) == (State.STARTING, State.RUNNING)
        return old.process.deletion_requested or not same or not self._supervisor.registry.is_listed(old)


def _completed(spec: ProcessSpec, old: ProcessSpec) -> ProcessSpec:
    """Return a spec with what its caller has no field for, or has left out, as it was."""
    return replace(
        spec,
        instance_type=spec.instance_type or old.instance_type,
        volume_name=spec.volume_name or old.volume_name,
    )


def _why_not(new: Process) -> InstanceManagerError:
    """Return the error for a replacement that failed, from the state of the new process."""
    cannot = f"cannot replace {new.name} by {new.uuid}"
    match new.state:
        case State.RUNNING:
            return AlreadyExistsError(
                f"{cannot}: the old process changed meanwhile; the new one is being ended"
            )
        case State.ERROR if new.body is Body.ALIVE:
            return DeadlineExceededError(f"{cannot}: {new.failure}; the old process is untouched")
        case State.STOPPING:
            return UnavailableError(f"{cannot}: the instance manager is ending")
    why = new.failure or f"ended at once ({new.exit})"
    return FailedPreconditionError(f"{cannot}: the new process failed: {why}; the old process is untouched")
