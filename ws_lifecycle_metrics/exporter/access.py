"""Who may talk to the sidecar: certificates and passwords, where the operator asks for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import math
import os
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ConfigError

if TYPE_CHECKING:
    from .web_config import Terms, WebConfig

EXTRA = "ws-lifecycle-metrics[web]"
BCRYPT_READS = 72
"""Bytes of a password that bcrypt looks at."""
MOST_GUESSES = 8
"""Passwords that may wait to be hashed, which takes about a tenth of a second each."""
RETRY = 5.0
"""Seconds after which files that were not accepted are read again, changed or not."""

logger = logging.getLogger("ws_lifecycle_metrics")


class BusyError(Exception):
    """Too many passwords wait to be hashed."""


class Access:
    """Guards a server by a web configuration file; without one, everybody is let in.

    The file and what it names are read anew when they change, so that certificates can be
    renewed and users removed while it runs. Raises `ConfigError` if the file is not accepted;
    later such a file is logged, and what stood before stays. So it does if the file would open
    what was closed: it may be half written.
    """

    def __init__(
        self, web_config_file: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._path = Path(web_config_file).absolute() if web_config_file else None
        self._web: WebConfig | None = None
        self._stamps: dict[Path, object] = {}
        self._refused = ""  # why the files were not accepted the last time
        self._retry_at = math.inf
        self._guesses = 0
        self._known: dict[str, bytes] = {}  # of each user the fingerprint of the proven password
        self._salt = secrets.token_bytes(32)
        # One: guesses wait for each other, and never for the collection or the watch.
        self._thread = ThreadPoolExecutor(1, "ws-lifecycle-password")
        if self._path is not None:
            self._read(self._path)

    def close(self) -> None:
        """Check nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def encrypts(self) -> bool:
        """Whether clients must speak TLS."""
        return self._web is not None and self._web.tls is not None

    @property
    def identifies(self) -> bool:
        """Whether clients must show a password or a certificate."""
        web = self._web
        if web is None:
            return False
        return bool(web.users) or _verifies(web)

    @property
    def headers(self) -> Mapping[str, str]:
        """What each response carries besides."""
        return {} if self._web is None else self._web.headers

    @property
    def terms(self) -> Terms | None:
        """On which terms clients must speak TLS. Who began on others has to begin anew."""
        return None if self._web is None else self._web.terms

    def refresh(self) -> None:
        """Read the files again if one has changed: for each connection, and for each request."""
        if self._path is None or not self._is_due():
            return
        try:
            self._read(self._path)
        except ConfigError as error:
            self._retry_at = self._clock() + RETRY
            if str(error) != self._refused:
                logger.error("%s; what was read before stays in force", error)
            self._refused = str(error)
        else:
            logger.info("web_config_file: read anew")

    def _is_due(self) -> bool:
        if self._clock() >= self._retry_at:
            return True
        return any(_stamp(path) != was for path, was in self._stamps.items())

    def _read(self, path: Path) -> None:
        try:
            from .web_config import load
        except ImportError as error:
            raise ConfigError(f"web_config_file needs PyYAML: pip install '{EXTRA}'") from error
        # Before they are read, so that a change meanwhile is seen the next time.
        before = self._stamps = {known: _stamp(known) for known in (path, *self._stamps)}
        web = load(path)
        if web.users:
            _need_bcrypt()
        if self._web is not None:
            _check_still_guards(self._web, web)
        self._web, self._refused, self._retry_at = web, "", math.inf
        self._stamps = {
            named: before[named] if named in before else _stamp(named) for named in web.files
        }

    async def secure(self, writer: asyncio.StreamWriter) -> Terms | None:
        """Begin TLS, if it is asked for; return the terms. Nothing may have been read yet.

        Raises OSError if the client does not begin it or may not come in.
        """
        web = self._web
        if web is None or web.tls is None:
            return None
        await writer.start_tls(web.tls)
        if web.client_allowed_sans:
            peer = writer.get_extra_info("peercert") or {}
            names = {_as_san(value) for _, value in peer.get("subjectAltName", ())}
            if names.isdisjoint(map(_as_san, web.client_allowed_sans)):
                raise PermissionError("none of the certificate's names is in client_allowed_sans")
        return web.terms

    async def admits(self, authorization: str) -> bool:
        """Whether this Authorization header is that of a user, if users are asked for at all.

        Raises `BusyError` where that would have to wait for too many others.
        """
        users = {} if self._web is None else self._web.users
        if not users:
            return True
        given = _credentials(authorization)
        if given is None:
            return False
        name, password = given
        # Whoever is unknown waits for a hash as well: where all have the same cost, the time does
        # not tell which names exist.
        secret = users.get(name, next(iter(users.values())))
        fingerprint = self._fingerprint(secret, password)
        if name in users and hmac.compare_digest(self._known.get(name, b""), fingerprint):
            return True
        if not await self._proves(password, secret) or name not in users:
            return False
        self._known[name] = fingerprint  # a scrape shall not cost a tenth of a second
        return True

    async def _proves(self, password: bytes, secret: bytes) -> bool:
        if self._guesses >= MOST_GUESSES:
            raise BusyError
        self._guesses += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _matches, password, secret)
        finally:
            self._guesses -= 1

    def _fingerprint(self, secret: bytes, password: bytes) -> bytes:
        return hashlib.blake2b(secret + password, key=self._salt).digest()


def _check_still_guards(before: WebConfig, after: WebConfig) -> None:
    """Raise `ConfigError` for what lets in whom it kept out, but for certificates and users."""
    gone = [
        name
        for name, had, has in (
            ("tls_server_config", before.tls, after.tls),
            ("basic_auth_users", before.users, after.users),
            ("client_allowed_sans", before.client_allowed_sans, after.client_allowed_sans),
            ("client_auth_type", _verifies(before), _verifies(after)),
        )
        if had and not has
    ]
    if gone:
        raise ConfigError(f"web_config_file takes away {', '.join(gone)}: restart for that")


def _verifies(web: WebConfig) -> bool:
    return web.tls is not None and web.tls.verify_mode is ssl.CERT_REQUIRED


def _stamp(path: Path) -> object:
    """Return what changes when the file does, or who may read it."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    """Return name and password of HTTP's Basic scheme."""
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except ValueError:  # neither base64 nor UTF-8
        return None


def _matches(password: bytes, secret: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:BCRYPT_READS], secret)
    except ValueError:  # a password that bcrypt does not take, such as one with a NUL
        return False


def _need_bcrypt() -> None:
    try:
        import bcrypt  # noqa: F401  # whether it is there
    except ImportError as error:
        raise ConfigError(f"basic_auth_users need bcrypt: pip install '{EXTRA}'") from error


def _as_san(name: str) -> str:
    """Return a name in one spelling: OpenSSL writes IPv6 addresses out in full."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name
