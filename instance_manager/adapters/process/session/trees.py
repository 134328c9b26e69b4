"""The processes of many instances, found in one look at all processes."""

from collections.abc import Collection

from instance_manager.adapters.process.slices import Slices
from instance_manager.platform import proc


async def trees(leaders: Collection[int]) -> dict[int, list[int]]:
    """Return the PIDs that belong to each leader: itself, its session, and what descends from those.

    Who has lost both his parents and his session is found by nobody; at the end of an instance the search in
    the environments finds him.
    """
    if not leaders:
        return {}
    stats: dict[int, proc.Stat] = {}
    slices = Slices()
    for pid in proc.all_processes():
        await slices.pause()
        try:
            stat = proc.read_stat(pid)
        except proc.UnreadableError:
            continue
        if stat is not None:
            stats[pid] = stat
    found: dict[int, list[int]] = {leader: [] for leader in leaders if leader in stats}
    for pid in stats:
        if (leader := _leader_of(pid, stats, found)) is not None:
            found[leader].append(pid)
    return found


def _leader_of(pid: int, stats: dict[int, proc.Stat], leaders: Collection[int]) -> int | None:
    """Return the leader that is the nearest of a process; None if it has none."""
    # Not looked at all at once: with PIDs that were used again meanwhile, parents may lead in a circle.
    for _ in stats:
        stat = stats.get(pid)
        if stat is None or pid in leaders:
            return pid if stat else None
        if stat.session in leaders:
            return stat.session
        pid = stat.parent
    return None
