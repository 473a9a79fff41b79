"""What answers where the sidecar should."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator

from ..config import ExporterConfig
from .finding import Finding

SECONDS = 3.0


class _GuardedError(Exception):
    """It does not talk to everybody; the text says what it wants."""


def look_at_sidecar(config: ExporterConfig) -> Iterator[Finding]:
    """Ask it whether all is well and which service it serves; it need not be one of ours."""
    address = f"{config.host}:{config.port}"
    try:
        status, body = _get(config, "/healthz")
    except _GuardedError as error:
        yield Finding("exporter", "note", f"{address} answers, and asks for {error}")
    except OSError:
        advice = "start it beside the workers: ws-lifecycle-metrics serve"
        yield Finding("exporter", "note", f"nothing answers on {address}", advice)
    except http.client.HTTPException:
        yield Finding("exporter", "warning", f"{address} is no sidecar: it does not speak HTTP")
    else:
        yield from _judge(config, address, status, body)


def _judge(config: ExporterConfig, address: str, status: int, body: str) -> Iterator[Finding]:
    told, described = _described(config)
    served = _served(described)
    if served not in (None, config.service):
        text = f"{address} serves {served!r}, not {config.service!r}"
        advice = "give the workers, the sidecar and this command the same --service"
        yield Finding("exporter", "warning", text, advice)
    if status != 200:
        yield Finding("exporter", "warning", f"{address} answers {status}: {body[:100]!r}")
    elif served == config.service:
        yield Finding("exporter", "ok", f"{address} answers for {served!r}")
    elif told == 503:
        yield Finding(
            "exporter", "warning", f"{address} collects nothing: {described[:400].strip()!r}"
        )
    elif served is None:
        text = f"{address} does not say which service it serves: {described[:100]!r}"
        yield Finding("exporter", "warning", text, "is it a sidecar of this package?")


def _described(config: ExporterConfig) -> tuple[int, str]:
    try:
        return _get(config, "/connections?limit=0")
    except (_GuardedError, OSError, http.client.HTTPException):
        return 0, ""  # it answers, hence it is something else, or slow


def _get(config: ExporterConfig, path: str) -> tuple[int, str]:
    try:
        answer = _ask(http.client.HTTPConnection(config.host, config.port, timeout=SECONDS), path)
    except ConnectionResetError:  # as a server that speaks TLS answers plain HTTP
        answer = _ask_over_tls(config, path)
    if answer[0] == 401:
        raise _GuardedError("a password")
    return answer


def _ask_over_tls(config: ExporterConfig, path: str) -> tuple[int, str]:
    # Nothing is told to it, and what it says is not relied on: it need not prove its name.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = http.client.HTTPSConnection(config.host, config.port, timeout=SECONDS, context=context)
    secure.connect()
    try:
        return _ask(secure, path)
    except OSError as error:
        raise _GuardedError("a certificate") from error


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode(errors="replace")
    finally:
        connection.close()


def _served(described: str) -> str | None:
    """Return the service that a sidecar's list of connections is of; None: it does not say."""
    try:
        served = json.loads(described)["service"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return served[:64] if isinstance(served, str) else None
