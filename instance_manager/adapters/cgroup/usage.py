"""What instances use, as the kernel has counted it for their cells."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from instance_manager.adapters.cgroup.cell import CgroupCell
from instance_manager.core.usage import Usage
from instance_manager.platform.reading import BoundedReader
from instance_manager.platform.usage import usage_of

_ONLY_COUNTED = {"out_of_memory_kills"}
"""What processes cannot tell of themselves."""


async def usage_of_cells(cells: Mapping[int, CgroupCell], reader: BoundedReader) -> dict[int, Usage]:
    """Return what the members of cells use; these are asked only for what the kernel does not count.

    Args:
        cells: by the PIDs of their leaders. One that cannot be looked at is left out.
        reader: asks the members.
    """
    counted: dict[int, Usage] = {}
    asked: dict[int, list[int]] = {}
    for leader, cell in cells.items():
        await asyncio.sleep(0)
        with suppress(OSError):
            members = list(cell.members())
            counted[leader] = replace(cell.usage(), processes=len(members))
            if set(counted[leader].missing) - _ONLY_COUNTED:
                asked[leader] = members
    answers = await usage_of(asked, reader)
    return {leader: each.completed_by(answers.get(leader, each)) for leader, each in counted.items()}
