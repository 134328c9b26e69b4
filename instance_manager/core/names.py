"""Names of processes: what is allowed, and what a name means.

A name becomes a file name (`NAME.log`), an environment variable and, in Kubernetes, the name of a custom
resource; hence a DNS-1123 subdomain, and room for `.log` in a 255-byte file name.
"""

import re

from instance_manager.core.errors import InvalidArgumentError

MAX_NAME_LENGTH = 251

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_ENGINE = re.compile(r".+?-e-[^-]*")


def validate_name(name: str) -> None:
    """Check that a name is a DNS-1123 subdomain of at most 251 characters.

    Raises:
        InvalidArgumentError: if not; the message names the rule that is broken.
    """
    if not name:
        raise InvalidArgumentError("cannot use an empty name: set the name of the process")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidArgumentError(
            f"cannot use a name of {len(name)} characters: {MAX_NAME_LENGTH} is the most there may be"
        )
    if _SUBDOMAIN.fullmatch(name) is None:
        raise InvalidArgumentError(
            f"cannot use the name {name!r}: only lower-case letters, digits, '-' and '.' are allowed, and "
            "each part between dots begins and ends with a letter or digit (DNS-1123 subdomain)"
        )


def is_engine_name(name: str) -> bool:
    """Return whether this is the name of an engine, by Longhorn's convention `VOLUME-e-SUFFIX`."""
    return _ENGINE.fullmatch(name) is not None


def volume_of_engine(name: str) -> str:
    """Return the volume of an engine, by its name: the name without its last two `-` parts."""
    return name.rsplit("-", 2)[0]
