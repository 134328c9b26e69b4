"""Names: which are allowed, and which belong to engines."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import MAX_NAME_LENGTH, is_engine_name, validate_name, volume_of_engine

ALNUM = set(string.ascii_lowercase + string.digits)
NEARLY = st.text(alphabet="ab9-._/\\A \n\0é", max_size=12)
PARTS = st.lists(st.text(alphabet="ab09-", min_size=1, max_size=6), min_size=1, max_size=4)


def is_subdomain(name: str) -> bool:
    """Tell whether a name is a DNS-1123 subdomain, label by label and letter by letter."""
    return 1 <= len(name) <= MAX_NAME_LENGTH and all(
        label and label[0] in ALNUM and label[-1] in ALNUM and set(label) <= ALNUM | {"-"}
        for label in name.split(".")
    )


def accepted(name: str) -> bool:
    try:
        validate_name(name)
    except InvalidArgumentError:
        return False
    return True


@given(NEARLY | st.text(max_size=12) | PARTS.map(".".join))
@example("a\n")
@example("a.b\n")
def test_exactly_the_dns_subdomains_are_names(name: str) -> None:
    assert accepted(name) == is_subdomain(name)


@given(st.integers(1, 300), st.sampled_from(["a", "a.", "a-"]))
def test_a_name_is_at_most_251_characters_long(length: int, pattern: str) -> None:
    name = (pattern * length)[: length - 1] + "z"
    assert accepted(name) == (length <= 251 and is_subdomain(name))


def test_the_longest_name_leaves_room_for_the_file_name_of_its_log() -> None:
    assert accepted("a" * 251)
    assert not accepted("a" * 252)
    assert len("a" * 251 + ".log") == 255


@pytest.mark.parametrize(
    "name",
    ["vol-e-0", "pvc-8a4b-r-12ef", "a", "9", "0.1.2", "a--b", "vol.with.dots-e-1", "x" * 251],
)
def test_names_as_longhorn_makes_them_are_allowed(name: str) -> None:
    assert accepted(name)


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "../x", "a/../b", "/etc/passwd", "a/b", "a\\b", "..%2fx", "a..b", "~", "./a"),
        *("a\0b", "a\0", "a\n", "\na", "a b", " a", "a\t", "a\r\n"),
        *("A", "aB", "a_b", "a:b", "a*", "$a", "a;b"),
        *("-a", "a-", "a.-b", "a-.b", ".a", "a.", "-", "-rf"),
        *("é", "ａ", "а", "a\u0301", "ﬁ", "１", "٣", "ı", "a\u200bb", "a\u202eb", "💥", "\ud800"),  # noqa: RUF001
    ],
    ids=ascii,
)
def test_names_that_could_do_harm_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="DNS-1123 subdomain"):
        validate_name(name)


def test_an_empty_name_and_a_long_one_are_refused_in_words_of_their_own() -> None:
    with pytest.raises(InvalidArgumentError, match="empty name: set the name"):
        validate_name("")
    with pytest.raises(InvalidArgumentError, match="252 characters: 251 is the most"):
        validate_name("a" * 252)


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("vol-e-0", "vol"),
        ("pvc-8a4b-77-e-12ef", "pvc-8a4b-77"),
        ("vol-e-e-0", "vol-e"),
        ("a-e-b-e-c", "a-e-b"),
        ("vol.x-e-0", "vol.x"),
        ("vol-e-", "vol"),
    ],
)
def test_an_engine_tells_its_volume(name: str, volume: str) -> None:
    assert is_engine_name(name)
    assert volume_of_engine(name) == volume


@pytest.mark.parametrize("name", ["vol-r-0", "vol", "-e-0", "e-0", "vol-e-0-1", "vol-e", "vole-0", ""])
def test_other_names_are_no_engines(name: str) -> None:
    assert not is_engine_name(name)


@given(st.text(alphabet="ae-.0", max_size=10))
def test_an_engine_is_a_volume_and_a_suffix_without_a_dash(name: str) -> None:
    volume, _, rest = name.rpartition("-e-")
    assert is_engine_name(name) == (volume != "" and "-" not in rest)


@given(PARTS.map(".".join), st.text(alphabet="ae0.", max_size=4))
def test_the_volume_is_what_the_engine_was_named_after(volume: str, suffix: str) -> None:
    name = f"{volume}-e-{suffix}"
    assert is_engine_name(name)
    assert volume_of_engine(name) == volume
