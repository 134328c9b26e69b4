"""Names and the end of a certificate are read exactly as they are, and damage is an error and no other."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.certificates import PEER_NAME, CertificateSet, matches_name
from instance_manager.core.x509 import holder_of, pem_blocks, to_pem
from tests.support.certificates import DAY, Authority, today, with_mark

OURS = Authority()
CERTIFICATE = OURS.signed("a.example", "b.example", common_name="c")
ODD = ["\0", "\n", "\r", "\x7f", "\x1b"]


def test_the_names_are_the_dns_names_and_then_the_common_name() -> None:
    holder = holder_of(CERTIFICATE.certificate)
    assert holder.names == ("a.example", "b.example", "c")
    assert abs(holder.not_after - (today() + 365 * DAY).timestamp()) < 3600


def test_dates_of_the_next_century_are_read() -> None:
    late = today().replace(year=2090, microsecond=0)
    holder = holder_of(OURS.special(common_name="x", until=late).certificate)
    assert (holder.names, holder.not_after) == (("x",), late.timestamp())


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["dns", "common_name"])
def test_a_name_that_others_may_cut_matches_nothing(odd: str, where: str) -> None:
    name = f"{PEER_NAME}{odd}.evil.example"
    made = OURS.special(dns=(name, PEER_NAME)) if where == "dns" else OURS.special(common_name=name)
    names = holder_of(made.certificate).names
    assert name in names
    assert not matches_name(names, PEER_NAME)


@given(st.binary(max_size=200) | st.sampled_from([CERTIFICATE.certificate]))
def test_what_is_no_certificate_is_an_error(content: bytes) -> None:
    for pem in (content, to_pem("CERTIFICATE", content)):
        if pem != CERTIFICATE.certificate:
            with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
                holder_of(pem)


@given(st.data())
def test_a_damaged_certificate_is_read_or_an_error(data: st.DataObject) -> None:
    der = bytearray(pem_blocks(CERTIFICATE.certificate)[0][1])
    for _ in range(data.draw(st.integers(1, 5))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        holder_of(to_pem("CERTIFICATE", bytes(der)))


def test_what_is_around_the_blocks_does_not_matter() -> None:
    marked = CertificateSet(*map(with_mark, (CERTIFICATE.ca, CERTIFICATE.certificate, CERTIFICATE.key)))
    assert marked.normalized() == CERTIFICATE.normalized() == CERTIFICATE
    mixed = CERTIFICATE.key + CERTIFICATE.certificate
    assert CertificateSet(mixed, mixed, mixed).normalized().certificate == CERTIFICATE.certificate
    assert CertificateSet(mixed, mixed, mixed).normalized().key == CERTIFICATE.key


@given(st.binary(min_size=1, max_size=300))
def test_a_block_is_read_as_it_was_written(der: bytes) -> None:
    assert pem_blocks(b"x\r\n" + to_pem("CERTIFICATE", der) + to_pem("PRIVATE KEY", der)) == [
        ("CERTIFICATE", der),
        ("PRIVATE KEY", der),
    ]
    assert base64.b64encode(der)[:64] in to_pem("CERTIFICATE", der)
