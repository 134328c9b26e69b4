"""What may be done to the replicas of a volume."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.engine import Mode, Replica
from instance_manager.core.engine_address import engine_address
from instance_manager.core.engine_rules import clone_source, rebuild_sources
from instance_manager.core.errors import InvalidArgumentError, UpstreamError
from instance_manager.core.ports import MAX_PORT

NEW = "tcp://n:1"
MODES = st.sampled_from(Mode)
REPLICAS = st.lists(MODES, max_size=5).map(
    lambda modes: [Replica(f"tcp://h:{number}", mode, "v") for number, mode in enumerate(modes)]
)


@given(REPLICAS, st.one_of(st.none(), MODES), st.integers(-1, 6))
def test_a_rebuild_copies_from_complete_replicas_only(
    others: list[Replica], mode: Mode | None, limit: int
) -> None:
    replicas = [*others, *([Replica(NEW, mode, "v")] if mode else [])]
    complete = [each.address for each in others if each.mode is Mode.RW]
    if mode is Mode.WO and complete:
        sources = rebuild_sources(replicas, NEW, limit)
        assert list(sources) == complete[: max(1, limit)]
    else:
        with pytest.raises(UpstreamError):
            rebuild_sources(replicas, NEW, limit)


@given(REPLICAS)
def test_a_clone_copies_from_the_first_complete_replica(replicas: list[Replica]) -> None:
    complete = [each.address for each in replicas if each.mode is Mode.RW]
    if complete:
        assert clone_source(replicas, "v") == complete[0]
    else:
        with pytest.raises(UpstreamError, match="volume v"):
            clone_source(replicas, "v")


@given(
    st.sampled_from(["", "tcp://", "http://"]),
    st.sampled_from(["10.0.0.1", "[fd00::1]", "host-1.x"]),
    st.integers(1, MAX_PORT - 2),
    st.sampled_from(["", "/", "/v1", "/v1/x?y"]),
    st.integers(0, 2),
)
def test_an_address_is_host_and_port_whatever_is_around_them(
    scheme: str, host: str, port: int, path: str, offset: int
) -> None:
    assert str(engine_address(f"{scheme}{host}:{port}{path}", offset)) == f"{host}:{port + offset}"


@given(st.text(max_size=30))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        address = engine_address(text)
    except InvalidArgumentError:
        return
    assert address.host
    assert 0 < address.port <= MAX_PORT
    assert str(engine_address(str(address))) == str(address)
