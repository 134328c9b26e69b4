"""Certificates that are renewed on disk while the daemon serves."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from instance_manager.adapters.tls import files
from instance_manager.adapters.tls.loading import Loaded, Side, load
from instance_manager.core.certificates import (
    DAY,
    CertificateError,
    CertificateSet,
    Urgency,
    format_utc,
    urgency,
)
from instance_manager.platform.background import Background

log = structlog.get_logger(__name__)

WORK = "certificates"
"""Name of this background work."""
LOOK_SECONDS = 5.0
"""Between two looks at the files."""


class CertificateReloader:
    """Keeps the last good set of certificates, and looks for a newer one."""

    def __init__(self, folder: Path, peer_name: str, now: Callable[[], float]) -> None:
        self.peer_name = peer_name
        """The name that every certificate must carry."""
        self._folder = folder
        self._now = now
        self._loaded: Loaded
        self._seen: files.Fingerprint = ()
        self._suspect: files.Fingerprint = ()
        self._logged = False
        self._warned: tuple[Urgency, float] = (Urgency.NONE, 0.0)
        self._following: asyncio.Task[None] | None = None
        self._report: Callable[[bool], None] = lambda _: None
        self.last_error = ""
        """Why the set on disk is not in use; empty while it is."""
        self.renewals = 0
        """How often a newer set was loaded."""
        self.failures = 0
        """How often a newer set could not be used."""

    @property
    def current(self) -> CertificateSet:
        """The certificates in use; may be called by any thread."""
        return self._loaded.certificates

    @property
    def expires_at(self) -> float:
        """When the certificates in use expire, in seconds since the epoch."""
        return self._loaded.expires_at

    @property
    def healthy(self) -> bool:
        """Whether the certificates on disk are in use and have not expired."""
        return not self.last_error and self._now() <= self.expires_at

    def open(self) -> None:
        """Read the certificates for the first time.

        Raises:
            CertificateError: if they cannot be used.
        """
        self._seen = files.fingerprint(self._folder)
        self._loaded = self._load()
        self._warn()

    def follow(self, report: Callable[[bool], None], background: Background) -> None:
        """Look for newer files from now on; `report` gets `healthy` at once, and whenever it changes."""
        self._report = report
        report(self.healthy)
        self._following = background.every(WORK, LOOK_SECONDS, self.look_now)

    def close(self) -> None:
        """Stop looking."""
        if self._following is not None:
            self._following.cancel()

    def look(self) -> None:
        """Load newer files if they are good; otherwise keep the certificates in use, and log why.

        Files are not all replaced at the same moment, so bad files are logged only if they are still the same
        at the next look. They are tried again at every look, as they may become valid later.
        """
        found = files.fingerprint(self._folder)
        if found == self._seen:
            self.last_error = ""
        else:
            self._try(found)
        self._warn()

    def _try(self, found: files.Fingerprint) -> None:
        try:
            loaded = self._load()
        except CertificateError as error:
            why = str(error)
        else:
            renewed = loaded.certificates != self.current
            self._loaded, self._seen, self._suspect, self.last_error = loaded, found, (), ""
            # Only now: who reads it may connect at once, and a thread of gRPC asks for what is current.
            if renewed:
                self.renewals += 1
                log.info(
                    "certificates renewed", directory=str(self._folder), expires=format_utc(loaded.expires_at)
                )
            return
        if found != self._suspect:
            self._suspect, self._logged = found, False
            return
        self.last_error = why
        if not self._logged:
            self._logged = True
            self.failures += 1
            log.error("the renewed certificates are not used, those before are", reason=why)

    def _load(self) -> Loaded:
        try:
            return load(self._folder, Side.SERVER, self.peer_name, self._now())
        except (CertificateError, OSError):
            raise
        except Exception as error:
            # Certificates are others' work, and libraries fail on them in more ways than they document.
            raise CertificateError(
                f"cannot use the certificates in {self._folder}: they cannot be parsed ({error!r}); "
                "issue new ones"
            ) from error

    def _warn(self) -> None:
        """Log that renewal is due: when it becomes more urgent, then once a day."""
        now = self._now()
        due = urgency(self.expires_at, now)
        warned, when = self._warned
        if due is Urgency.NONE or (due <= warned and now - when < DAY):
            return
        self._warned = due, now
        expires = format_utc(self.expires_at)
        if due is Urgency.EXPIRED:
            log.error("the certificates have expired; clients refuse them", expired=expires)
        else:
            days = int((self.expires_at - now) / DAY)
            log.warning("the certificates expire soon; renew them", expires=expires, days=days)

    def look_now(self) -> None:
        """Look at once, once followed, and report a change of `healthy`."""
        if self._following is None:
            return
        before = self.healthy
        with contextlib.suppress(OSError):  # no descriptor is left: look again later
            self.look()
        if self.healthy != before:
            self._report(self.healthy)
