"""What the guided runs have found is fed again every day, and what the daemon itself writes, damaged."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:14]}")
def test_what_was_found_once_does_no_harm_any_more(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in FOUND} == set(TARGETS) == set(seeds())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_the_daemon_writes_itself_is_taken(target: str) -> None:
    for seed in seeds()[target]:
        TARGETS[target](seed)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"journal"}))
@settings(deadline=None)
@given(data=st.data())
def test_damage_to_what_the_daemon_writes_is_told(target: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds()[target]))
    where = data.draw(st.integers(0, len(seed)))
    until = data.draw(st.integers(where, len(seed)))
    TARGETS[target](seed[:where] + data.draw(st.binary(max_size=20)) + seed[until:])
