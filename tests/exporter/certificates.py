"""A certificate authority, and web configuration files that use what it issues."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme
import yaml


class Site:
    """Certificates and a web.yml in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.file = folder / "web.yml"
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue()

    def issue(self, *names: str) -> None:
        """Write a new certificate of the server, and its key."""
        issued = self.authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        issued.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(self.folder / "cert.pem"))

    def write(self, tls: dict[str, Any] | None = None, **parts: Any) -> str:
        """Write the file, with TLS unless `tls` is empty; return its path."""
        if tls is None or tls:
            given = {"cert_file": "cert.pem", "key_file": "key.pem", **(tls or {})}
            parts["tls_server_config"] = {k: v for k, v in given.items() if v is not None}
        self.file.write_text(yaml.safe_dump(parts))
        return str(self.file)

    def client(self, *names: str) -> ssl.SSLContext:
        """What a client trusts; with names it has a certificate for them."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if names:
            self.authority.issue_cert(*names).configure_cert(context)
        return context
