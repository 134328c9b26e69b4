"""Texts that are cut where they are too long."""

from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.errors import shorten


@given(text=st.text(), most=st.integers(8, 64))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, most: int) -> None:
    short = shorten(text, most)
    size = len(text.encode(errors="backslashreplace"))
    assert len(short.encode(errors="backslashreplace")) <= max(most, 0)
    assert (short == text) == (size <= most)
    if size > most:
        head, _, tail = short.partition("…")
        whole = text.encode(errors="backslashreplace").decode()
        assert whole.startswith(head)
        assert whole.endswith(tail)


@given(text=st.text(), most=st.integers(16, 64))
def test_what_bytes_cost_may_differ(text: str, most: int) -> None:
    def costs(text: str) -> int:
        return sum(map(cost, text.encode(errors="backslashreplace")))

    def cost(byte: int) -> int:
        return 3 if byte > 127 else 1

    short = shorten(text, most, cost)
    assert costs(short) <= most
    assert (short == text) == (costs(text) <= most)


def test_a_long_path_keeps_what_was_tried_and_why_it_failed() -> None:
    text = "cannot execute /" + "p" * 4000 + ": No such file or directory"
    short = shorten(text, 100)
    assert short.startswith("cannot execute /ppp")
    assert short.endswith("ppp: No such file or directory")
