"""The file that guards the sidecar, in the shape that Prometheus' own exporters read."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from ..config import ConfigError
from ..labels import safe_label

# Go's names: the file is the same for every exporter. Older versions of TLS are not offered, and
# neither are Go's ways to ask for a certificate that nobody verifies.
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""What each accepts; nothing: any text."""
BCRYPT = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
MOST_BYTES = 1 << 20

T = TypeVar("T")


Terms = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says."""

    tls: ssl.SSLContext | None = None
    client_allowed_sans: frozenset[str] = frozenset()
    """Names of which a client's certificate must have one; empty: any."""
    terms: Terms | None = None
    """On which terms clients speak TLS; None: they do not."""
    users: Mapping[str, bytes] = field(default_factory=dict)
    """The bcrypt hash of each user's password; empty: nobody is asked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    """What was read: the file, and the certificates and the key that it names."""


def load(path: Path) -> WebConfig:
    """Read the file and what it names; raises `ConfigError`, naming what is not accepted."""
    try:
        return _web_config(path, _parsed(_read(path)))
    except _BadValueError as error:
        raise ConfigError(f"web_config_file={str(path)!r}: {error}") from None


class _BadValueError(ValueError):
    """The text names the key and what is accepted, never a value that may be secret."""


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its writer
            raise _BadValueError(f"{safe_label(str(path))}: accepted is a regular file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _BadValueError(f"{safe_label(str(path))}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise _BadValueError(f"{safe_label(str(path))}: accepted are {MOST_BYTES} bytes")
    return data


class _Loader(yaml.SafeLoader):
    """Takes a key that stands twice for a mistake, where PyYAML would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parsed(text: bytes) -> object:
    # Never what PyYAML says of it: its texts have parts of the file, where passwords may stand.
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        kind = "a key stands twice" if error.problem is None else type(error).__name__
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _BadValueError(f"it is no YAML: {kind}{line}") from None
    except Exception as error:  # noqa: BLE001  # PyYAML raises whatever a bad scalar leads to
        raise _BadValueError(f"it is no YAML: {type(error).__name__}") from None


def _web_config(path: Path, found: object) -> WebConfig:
    parts = _table(
        "the file", found, ("tls_server_config", "http_server_config", "basic_auth_users")
    )
    tls = _Tls(path.parent, parts["tls_server_config"]) if "tls_server_config" in parts else None
    return WebConfig(
        tls=tls.context if tls else None,
        client_allowed_sans=frozenset(tls.allowed) if tls else frozenset(),
        terms=tls.terms() if tls else None,
        users=MappingProxyType(_users(parts.get("basic_auth_users"))),
        headers=MappingProxyType(_headers(parts.get("http_server_config"))),
        files=(path, *(tls.files if tls else ())),
    )


def _table(where: str, found: object, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys that have a value."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _BadValueError(f"{where}: accepted are the keys {', '.join(known)}")
    for key in found:
        if key not in known:
            raise _BadValueError(
                f"{where}: '{safe_label(str(key))}' is not known; accepted are {', '.join(known)}"
            )
    return {key: value for key, value in found.items() if value is not None}


class _Tls:
    """`tls_server_config`; relative paths in it are relative to the file's own directory."""

    KEYS = (
        *("cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans"),
        *("min_version", "max_version"),
    )

    def __init__(self, home: Path, found: object) -> None:
        self._home = home
        self._found = _table("tls_server_config", found, self.KEYS)
        cert, key = self._file("cert_file"), self._file("key_file")
        authority = self._file("client_ca_file")
        self.files = tuple(path for path in (cert, key, authority) if path is not None)
        self.allowed = self._sans()
        if cert is None or key is None:
            raise _BadValueError("tls_server_config: both cert_file and key_file are needed")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = self._one_of("min_version", VERSIONS, "TLS12")
        self.context.maximum_version = self._one_of("max_version", VERSIONS, "TLS13")
        if self.context.minimum_version > self.context.maximum_version:
            raise _BadValueError("tls_server_config.min_version: it is above max_version")
        self.context.set_alpn_protocols(["http/1.1"])
        # With a password, so that an encrypted key is an error and no prompt.
        self._load(
            "cert_file and key_file", lambda: self.context.load_cert_chain(cert, key, password="")
        )
        self._verify_clients(authority)

    def terms(self) -> Terms:
        """Return what a client has to fulfil: all but the server's own certificate."""
        names, tls = tuple(self.allowed), self.context
        return (
            tls.minimum_version,
            tls.verify_mode,
            names,
            tuple(tls.get_ca_certs(binary_form=True)),
        )

    def _verify_clients(self, authority: Path | None) -> None:
        mode = self._one_of("client_auth_type", CLIENTS, "NoClientCert")
        if (mode is ssl.CERT_NONE) is not (authority is None):
            raise _BadValueError(
                "tls_server_config: client_ca_file is needed where client_auth_type verifies "
                "clients, and only there"
            )
        if self.allowed and mode is not ssl.CERT_REQUIRED:
            raise _BadValueError(
                "tls_server_config.client_allowed_sans: "
                "accepted with client_auth_type RequireAndVerifyClientCert"
            )
        if authority is not None:
            self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be a root
            self._load("client_ca_file", lambda: self.context.load_verify_locations(authority))
        self.context.verify_mode = mode

    def _file(self, key: str) -> Path | None:
        name = self._found.get(key)
        if name is None:
            return None
        if not isinstance(name, str) or not name.isprintable():
            raise _BadValueError(f"tls_server_config.{key}: accepted is the name of a file")
        path = self._home / name
        if not path.is_file() or not os.access(path, os.R_OK):
            _read(path)  # says why it can't be read, which OpenSSL does not
        return path

    def _one_of(self, key: str, accepted: Mapping[str, T], default: str) -> T:
        name = self._found.get(key, default)
        if not isinstance(name, str) or name not in accepted:
            raise _BadValueError(f"tls_server_config.{key}: accepted are {', '.join(accepted)}")
        return accepted[name]

    def _sans(self) -> list[str]:
        names = self._found.get("client_allowed_sans", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _BadValueError(
                "tls_server_config.client_allowed_sans: accepted is a list of names"
            )
        return names

    def _load(self, key: str, load: Callable[[], object]) -> None:
        try:
            load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            why = getattr(error, "reason", None) or "it is not in PEM format, or encrypted"
            raise _BadValueError(f"tls_server_config: {key}: {why}") from None


def _users(found: object) -> dict[str, bytes]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _BadValueError("basic_auth_users: accepted are names, each with a bcrypt hash")
    for name, secret in found.items():
        shown = safe_label(str(name))
        if not isinstance(name, str) or not name or ":" in name:
            raise _BadValueError(
                f"basic_auth_users: '{shown}' is no name; accepted is text without ':'"
            )
        if not isinstance(secret, str) or not BCRYPT.fullmatch(secret):
            raise _BadValueError(
                f"basic_auth_users.{shown}: accepted is a bcrypt hash of the password, "
                "which begins with $2y$ or $2b$"
            )
    return {name: secret.encode() for name, secret in found.items()}


def _headers(found: object) -> dict[str, str]:
    # http2 is read and not heeded: clients fall back to HTTP/1.1, which is all that is spoken here.
    config = _table("http_server_config", found, ("http2", "headers"))
    if type(config.get("http2", True)) is not bool:
        raise _BadValueError("http_server_config.http2: accepted are true and false")
    headers = _table("http_server_config.headers", config.get("headers"), tuple(HEADERS))
    for name, value in headers.items():
        where, accepted = f"http_server_config.headers.{name}", HEADERS[name]
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise _BadValueError(f"{where}: accepted is printable ASCII text")
        if value and accepted and value.lower() not in accepted:
            raise _BadValueError(f"{where}: accepted are {', '.join(accepted)}")
    return {name: value for name, value in headers.items() if value}
