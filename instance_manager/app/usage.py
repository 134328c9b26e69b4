"""What instances use, looked at when somebody asks and at no other time."""

import asyncio
from collections.abc import Callable

from instance_manager.app.containment import Containment
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.process import Process
from instance_manager.core.usage import Usage


class UsageReader:
    """Looks at what the listed instances use."""

    def __init__(self, supervisor: Supervisor, containment: Containment) -> None:
        self._supervisor = supervisor
        self._containment = containment
        self._looking = asyncio.Lock()
        """One look at a time: thousands of processes may have to be read for it."""

    async def read(
        self, wanted: Callable[[Process], bool] = lambda _: True
    ) -> dict[str, tuple[Process, Usage]]:
        """Return those that are wanted, by UUID and in the order of their names, with what they use.

        One that has no process, or of which nothing can be read, is left out.
        """
        async with self._looking:
            processes = {
                process.identity.pid: process
                for _, process in sorted(self._supervisor.processes().items())
                if process.identity and wanted(process)
            }
            usages = await self._containment.usage(processes.keys())
            return {
                process.uuid: (process, usages[pid]) for pid, process in processes.items() if pid in usages
            }
