"""Credentials of backup targets, as managers send them along with a request: they hold for it alone."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from instance_manager.core.errors import InvalidArgumentError, UpstreamError

_AWS_ID, _AWS_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_S3 = ("AWS_ENDPOINTS", "AWS_CERT", *_PROXIES, "VIRTUAL_HOSTED_STYLE", "AWS_SIGN_ACCEPT_ENCODING")
_BY_SCHEME: Mapping[str, tuple[str, ...]] = {
    "s3": _S3,
    "cifs": ("CIFS_USERNAME", "CIFS_PASSWORD"),
    "azblob": (
        "AZBLOB_ACCOUNT_NAME",
        "AZBLOB_ACCOUNT_KEY",
        "AZBLOB_ENDPOINT",
        "AZBLOB_CERT",
        *_PROXIES,
    ),
}
"""Variables by scheme of the target; other targets need none."""
VARIABLES = frozenset({_AWS_ID, _AWS_KEY, *(name for names in _BY_SCHEME.values() for name in names)})
"""All that a request may set."""
CERTIFICATES = ("AWS_CERT", "AZBLOB_CERT")
"""Those that are certificates in PEM, which may be long."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_VALUES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""A certificate has several lines."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LONGEST_KEY = 64
"""Longest key that is told in a message, in characters."""


def check_backup_url(url: str, what: str) -> None:
    """Check that a URL can be given to programs and replicas.

    Args:
        url: of a backup or of a backup target. No message has it: it may have a password in it.
        what: begins the message of the error.

    Raises:
        InvalidArgumentError: if it has control characters, or a % that is no escape.
    """
    if _CONTROL.search(url):
        raise InvalidArgumentError(f"{what} has control characters; write them as %XX")
    if _BAD_ESCAPE.search(url):
        raise InvalidArgumentError(f"{what} has a % without two hexadecimal digits behind it; write % as %25")


def parse_variables(envs: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE texts. No message has a value in it.

    Raises:
        UpstreamError: INTERNAL, if one is of another form or sets something else than credentials.
    """
    found = {}
    for text in envs:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UpstreamError("INTERNAL", "failed to set envs: an entry is not KEY=VALUE")
        if key not in VARIABLES:
            raise UpstreamError(
                "INTERNAL", f"failed to set envs: {_unknown(key, value)} by the backup env allowlist"
            )
        if _CONTROL_IN_VALUES.search(value):
            raise UpstreamError("INTERNAL", f"failed to set envs: the value of {key} has control characters")
        found[key] = value
    return found


def _unknown(key: str, value: str) -> str:
    """Return what to say of a key, which may be a secret itself: base64 ends with equals signs."""
    if value.strip("=") and len(key) <= _LONGEST_KEY and key.isprintable():
        return f'env key "{key}" is not permitted'
    return "an entry has a key, not told because it may be a secret, that is not permitted"


def credential(target: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a sync agent is told for a backup target.

    Raises:
        InvalidArgumentError: if the target is no URL, or a half of a key pair is missing.
    """
    check_backup_url(target, "failed to get backup credential: the backup target")
    try:
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise InvalidArgumentError("failed to get backup credential: the backup target is no URL") from error
    told = {name: variables.get(name, "") for name in _BY_SCHEME.get(scheme, ())}
    if scheme == "s3":
        identifier, key = variables.get(_AWS_ID, ""), variables.get(_AWS_KEY, "")
        if identifier and not key:
            raise InvalidArgumentError(
                "failed to get backup credential: s3 credential secret access key not found"
            )
        if key and not identifier:
            raise InvalidArgumentError("failed to get backup credential: s3 credential access key not found")
        if key:
            told |= {_AWS_ID: identifier, _AWS_KEY: key}
    return told
