"""The one factor that all bounds of time in the tests share."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import FACTOR, factor, patience

TESTS = Path(__file__).parents[1]
HANG = 4
"""Seconds from which on a bound is for hangs, and not what a test is about."""


@pytest.mark.parametrize(
    ("load", "cores", "expected"), [(0.1, 2, 1), (2.0, 2, 1), (6.0, 2, 3), (33.0, 2, 16.5), (900.0, 2, 20)]
)
def test_the_load_of_each_core_tells_the_factor(load: float, cores: int, expected: float) -> None:
    assert factor(None, load, cores) == expected


def test_what_the_user_says_goes_before_the_load() -> None:
    assert factor("2.5", load=100, cores=2) == 2.5


@pytest.mark.parametrize("told", ["", "0", "-1", "soon", "nan", "inf"])
def test_a_factor_that_is_none_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=f"cannot use INSTANCE_MANAGER_TEST_PATIENCE={told}: "):
        factor(told, 1, 1)


def test_a_test_as_a_whole_has_patience_too(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker.args == (60 * FACTOR,)


@pytest.mark.timeout(7)
def test_a_test_with_a_bound_of_its_own_has_patience_too(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("timeout").args == (patience(7),)


def bounds(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what calls are given as a bound of time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "asyncio.timeout":
                yield node.args[0]
            if called == "asyncio.wait_for" and len(node.args) > 1:
                yield node.args[1]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "timeout")


def test_no_bound_of_seconds_is_without_patience() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{bound.lineno}: {ast.unparse(bound)}"
        for path in sorted(TESTS.rglob("*.py"))
        for bound in bounds(ast.parse(path.read_text()))
        if isinstance(bound, ast.Constant) and isinstance(bound.value, int | float) and bound.value >= HANG
    ]
    assert found == []
