"""Reading the names and the end of a certificate (RFC 5280) from its DER encoding, exactly as they are.

gRPC tells names as C strings, which end at the first NUL, and nothing of dates.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]*?)-----END \1-----")
_SEQUENCE, _BIT_OF_TEN, _LONG = 0x30, 0x1F, 0x80
_UTC_TIME, _BMP_STRING, _OCTETS = 0x17, 0x1E, 0x04
_DNS_NAME, _VERSION, _EXTENSIONS = 0x82, 0xA0, 0xA3
_COMMON_NAME = bytes.fromhex("550403")
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_CENTURY = 50
"""Two digits of a year from here on are of the 20th century."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a certificate is about, and until when."""

    names: tuple[str, ...]
    """The DNS names, then the common names."""
    not_after: float
    """In seconds since the epoch."""


def pem_blocks(content: bytes) -> list[tuple[str, bytes]]:
    """Return label and DER of each PEM block; what is around them does not matter.

    Blocks that cannot be decoded, or are encrypted, are left out.
    """
    blocks = []
    for label, text in _PEM.findall(content):
        try:
            blocks.append((label.decode(), base64.b64decode(b"".join(text.split()), validate=True)))
        except ValueError:
            continue
    return blocks


def to_pem(label: str, der: bytes) -> bytes:
    """Return DER as a PEM block, in the one form that every library reads."""
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), b"\n".join(lines), label.encode())


def holder_of(pem: bytes) -> Holder:
    """Return who the first certificate in PEM is about.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    blocks = pem_blocks(pem)
    if not blocks:
        raise ValueError("there is no certificate")
    try:
        return _parse(blocks[0][1])
    except (IndexError, StopIteration) as error:
        raise ValueError("the certificate is damaged") from error


def _parse(der: bytes) -> Holder:
    certificate = next(_items(der))[1]
    fields = list(_items(next(_items(certificate))[1]))
    if fields[0][0] == _VERSION:
        del fields[0]
    # Serial number, algorithm, issuer, validity, subject, key; then what is optional.
    validity, subject = fields[3][1], fields[4][1]
    common = [
        _text(*value)
        for _, relative in _items(subject)
        for _, attribute in _items(relative)
        for (_, kind), value in [tuple(_items(attribute))]
        if kind == _COMMON_NAME
    ]
    dns = [name for tag, each in fields[6:] if tag == _EXTENSIONS for name in _dns_names(each)]
    return Holder(tuple(dict.fromkeys((*dns, *filter(None, common)))), _time(*list(_items(validity))[1]))


def _dns_names(extensions: bytes) -> Iterator[str]:
    for _, extension in _items(next(_items(extensions))[1]):
        (_, kind), *_, (tag, content) = _items(extension)
        if kind == _ALTERNATIVE_NAMES and tag == _OCTETS:
            for form, name in _items(next(_items(content))[1]):
                if form == _DNS_NAME:
                    yield name.decode(errors="replace")


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each item."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if tag & _BIT_OF_TEN == _BIT_OF_TEN:
            raise ValueError("a tag of several bytes")
        if length & _LONG:
            size = length & ~_LONG
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("an item is longer than what it is in")
        yield tag, der[at : at + length]
        at += length


def _text(tag: int, content: bytes) -> str:
    return content.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", errors="replace")


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _CENTURY else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
