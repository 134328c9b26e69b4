"""The options for certificates, and what follows from them: plain text or mutual TLS, on either side."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from instance_manager.cli.exit_codes import ExitCode, Failure

if TYPE_CHECKING:
    from instance_manager.core.addresses import Address
    from instance_manager.core.certificates import CertificateSet

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TlsChoice:
    """The options for certificates."""

    folder: Path | None
    peer_name: str
    required: bool
    """Whether the directory must hold certificates. If only the environment names it, it may be empty:
    Longhorn's pods always name one, and mount an optional secret there."""

    @property
    def absent(self) -> bool:
        """Whether there are no certificates, and none are required."""
        from instance_manager.adapters.tls import is_empty

        return self.folder is None or (not self.required and is_empty(self.folder))


def tls_options(*, peer_name: str | None) -> Callable[[F], F]:
    """Add `--tls-dir` and `--tls-peer-name` to a command; without a default the global options apply."""
    inherited = None if peer_name else "that before the command"

    def add(command: F) -> F:
        command = click.option(
            "--tls-peer-name",
            default=peer_name,
            show_default=inherited or True,
            metavar="NAME",
            help="DNS name that the certificates of both sides must carry.",
        )(command)
        return click.option(
            "--tls-dir",
            # What cannot be read is told when it is loaded: it may be repaired while a guard tries again.
            type=click.Path(path_type=Path, file_okay=False, readable=False),
            default=None,
            envvar=None if inherited else "TLS_DIR",
            show_default=inherited or "plain text",
            help="Mutual TLS: directory with ca.crt, tls.crt and tls.key.",
        )(command)

    return add


def is_required(ctx: click.Context) -> bool:
    """Return whether `--tls-dir` was given other than by the environment."""
    return ctx.get_parameter_source("tls_dir") is not ParameterSource.ENVIRONMENT


def client_certificates(choice: TlsChoice, address: "Address") -> "CertificateSet | None":
    """Return the certificates for a connection to a daemon; None for plain text.

    Raises:
        Failure: if the certificates cannot be used.
    """
    if choice.folder is None or (choice.absent and _is_local(address)):
        return None
    import time

    from instance_manager.adapters.tls import Side, load
    from instance_manager.core.certificates import CertificateError

    try:
        return load(choice.folder, Side.CLIENT, choice.peer_name, time.time()).certificates
    except CertificateError as error:
        raise Failure(str(error), ExitCode.FAILURE) from error


def explain(
    address: "Address", shown: "CertificateSet | None", choice: TlsChoice, within: float
) -> str | None:
    """Return what is wrong with the certificates of a connection that failed, None if nothing is."""
    import time

    from instance_manager.adapters.tls import Attempt, diagnose

    return diagnose(Attempt(address, shown, choice.peer_name, within), time.time())


def _is_local(address: "Address") -> bool:
    from instance_manager.platform.loopback import is_loopback

    return bool(address.path) or is_loopback(address.host)
