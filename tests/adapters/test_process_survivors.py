"""Processes that a daemon has left are found by what they carry."""

from pathlib import Path

from instance_manager.adapters.process import ProcessSurvivors
from tests.adapters.conftest import Workshop


async def test_a_living_process_is_found_with_its_identity_and_age_and_what_it_started_is_not(
    workshop: Workshop, tmp_path: Path
) -> None:
    started = workshop.shell("(setsid sh -c 'echo up; exec sleep 1000') & exec sleep 1000")
    assert await workshop.output.line() == "up"
    survivors = ProcessSurvivors("the test", tmp_path, None)
    try:
        (found,) = survivors.find()
        assert (found.name, found.uuid) == ("one", started.uuid)
        assert found.identity == started.child.identity
        assert 0 <= found.age < 60
        assert ProcessSurvivors("another", tmp_path, None).find() == []
    finally:
        await workshop.end()
        await started.child.end_tree()
