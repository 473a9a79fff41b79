"""What is known to be wrong here: versions, the directory, segments, settings, the exporter."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..advisories import advisories_for
from ..config import Config, ExporterConfig, environment_name
from ..store.directory import Directory, DirectoryError, service_path, try_lock
from ..store.services import never_used

LEAST_SHARED_MEMORY = 16 << 20
"""Bytes; a container has 64 MiB unless told otherwise, and a worker takes about 1 MiB."""
MOST_SKEW = 2.0

PACKAGES = (
    *("granian", "uvicorn", "hypercorn", "daphne", "gunicorn", "websockets", "wsproto"),
    *("django", "channels", "strawberry-graphql", "starlette", "fastapi", "litestar"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `level` is "ok", "note", "warning" or "error"."""

    subject: str
    level: str
    text: str
    advice: str = ""
    source: str = ""


def examine(config: Config, exporter: ExporterConfig) -> list[Finding]:
    """Look at everything; a check of ours that fails is itself a finding."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("versions", _versions),
        ("service", lambda: _service(config)),
        ("directory", lambda: _directory(config)),
        ("shared memory", lambda: _shared_memory(config)),
        ("segments", lambda: _segments(config)),
        ("exporter", lambda: _exporter(exporter)),
        ("clock", _clock),
        ("settings", _settings),
    )
    found: list[Finding] = []
    for subject, look in checks:
        try:
            found += look()
        except Exception as error:  # noqa: BLE001  # the next check may still tell something
            text = f"could not be looked at: {type(error).__name__}: {error}"
            found.append(Finding(subject, "warning", text))
    return found


def exit_code(findings: list[Finding]) -> int:
    """0: nothing to do, 1: warnings or errors."""
    return int(any(finding.level in ("warning", "error") for finding in findings))


def _python() -> Iterator[Finding]:
    text = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "error", text)


def _versions() -> Iterator[Finding]:
    """Compare what is installed with the advisories; a fault without a fix is only noted."""
    for package in PACKAGES:
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        found = advisories_for(package, installed)
        if not found:
            yield Finding(package, "ok", installed)
        for advisory in found:
            level = advisory.severity if advisory.fixed else "note"
            text = f"{installed}: {advisory.id} ({advisory.affected}): {advisory.summary}"
            yield Finding(package, level, text, advisory.advice, advisory.source)


def _service(config: Config) -> Iterator[Finding]:
    """Tell an unknown name from an idle service; where nobody has run, it may only be early."""
    unused = never_used(config)
    if unused is None:
        yield Finding("service", "ok", config.service)
    else:
        advice = f"is it the name that the workers have? --service or {environment_name('service')}"
        yield Finding("service", "warning" if unused.others else "note", unused.text, advice)


def _directory(config: Config) -> Iterator[Finding]:
    path = service_path(config.directory, config.service)
    if not path.exists():
        yield Finding("directory", "note", f"{path} is not there yet")
        return
    try:
        with Directory(path):
            yield Finding("directory", "ok", str(path))
    except DirectoryError as error:
        advice = "workers keep their numbers to themselves; fix the owner or the mode (0700)"
        yield Finding("directory", "error", str(error), advice)


def _shared_memory(config: Config) -> Iterator[Finding]:
    path = service_path(config.directory, config.service)
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    text = f"{path}: {usage.free >> 20} MiB free of {usage.total >> 20} MiB"
    little = usage.free < LEAST_SHARED_MEMORY
    advice = "give the container more: docker run --shm-size=256m, or a tmpfs volume"
    yield Finding("shared memory", "warning" if little else "ok", text, advice if little else "")


def _segments(config: Config) -> Iterator[Finding]:
    """Count segments by their locks: nothing is folded or changed here."""
    try:
        directory = Directory(service_path(config.directory, config.service))
    except DirectoryError:
        return  # said above
    with directory:
        alive = [_is_alive(directory, name) for name in directory.segments()]
    dead = alive.count(False)
    text = f"{alive.count(True)} alive, {dead} dead"
    advice = "a sidecar folds them into the archive; is `ws-lifecycle-metrics serve` running?"
    yield Finding("segments", "note" if dead else "ok", text, advice if dead else "")


def _is_alive(directory: Directory, name: str) -> bool | None:
    try:
        fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        free = try_lock(fd, exclusive=False)
        return None if free is None else not free
    finally:
        os.close(fd)


def _exporter(config: ExporterConfig) -> Iterator[Finding]:
    address = f"{config.host}:{config.port}"
    try:
        status, body = _get(config, "/healthz")
        _, described = _get(config, "/connections?limit=0")
    except OSError:
        advice = "start it beside the workers: ws-lifecycle-metrics serve"
        yield Finding("exporter", "note", f"nothing answers on {address}", advice)
        return
    except http.client.HTTPException:
        yield Finding("exporter", "warning", f"{address} is no sidecar: it does not speak HTTP")
        return
    served = _served(described)
    if served not in (None, config.service):
        text = f"{address} serves {served!r}, not {config.service!r}"
        advice = "give the workers, the sidecar and this command the same --service"
        yield Finding("exporter", "warning", text, advice)
    if status != 200:
        yield Finding("exporter", "warning", f"{address} answers {status}: {body[:100]!r}")
    elif served == config.service:
        yield Finding("exporter", "ok", f"{address} answers for {served!r}")
    elif served is None:
        text = f"{address} does not say which service it serves: {described[:100]!r}"
        yield Finding("exporter", "warning", text, "is it a sidecar of this package?")


def _get(config: ExporterConfig, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(config.host, config.port, timeout=3)
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


def _clock() -> Iterator[Finding]:
    """See that the wall clock moves as the monotonic one does."""
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(0.05)
    skew = abs((time.time() - wall) - (time.monotonic() - monotonic))
    year = time.gmtime(wall).tm_year
    if skew > MOST_SKEW or year < 2024:
        advice = "dashboards compare it with the server's; run a time service"
        yield Finding("clock", "warning", f"year {year}, {skew:.1f} s off in 0.05 s", advice)
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall)))


def _settings() -> Iterator[Finding]:
    """Name what keeps a hung or dead worker from being noticed."""
    for name, command in _serving_processes():
        for blind, why, advice in _BLIND:
            if blind(command):
                yield Finding("settings", "warning", f"{name}: {why}", advice)
    policy = os.environ.get(environment_name("policy"))
    if policy == "strict":
        text = f"{environment_name('policy')}=strict raises into the application"
        yield Finding("settings", "warning", text, "use observe or shield in production")


def _has(*words: str) -> Callable[[list[str]], bool]:
    return lambda command: any(
        argument == word or argument.startswith(word + "=")
        for argument in command
        for word in words
    )


def _granian_keeps_the_dead(command: list[str]) -> bool:
    return "granian" in command and not _has("--respawn-failed-workers")(command)


_BLIND: tuple[tuple[Callable[[list[str]], bool], str, str], ...] = (
    (
        _granian_keeps_the_dead,
        "a worker that dies takes the whole server with it",
        "start Granian with --respawn-failed-workers",
    ),
    (
        _has("--reuse-port"),
        "workers share the port, so the kernel sends scrapes and probes to hung ones too",
        "scrape the sidecar, and let its /healthz be the probe",
    ),
    (
        lambda command: "gunicorn" in command and _has("--timeout=0")(command),
        "hung workers are never restarted",
        "give gunicorn a --timeout",
    ),
)


def _serving_processes() -> Iterator[tuple[str, list[str]]]:
    """Yield this user's running servers, by name and pid, with their arguments' base names."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            words = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended while it was looked at
        command = [word.rpartition("/")[2] for word in words if word]
        name = next((word for word in command[:4] if word in _SERVERS), None)
        if name is not None and command[0].startswith(("python", name)):
            yield f"{name} ({folder.name})", command


_SERVERS = frozenset({"granian", "uvicorn", "hypercorn", "daphne", "gunicorn"})


def as_json(findings: list[Finding]) -> str:
    """Return the findings as JSON."""
    rows = [{name: getattr(f, name) for name in Finding.__slots__} for f in findings]
    return json.dumps({"exit_code": exit_code(findings), "findings": rows}, indent=2)
