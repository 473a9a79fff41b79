"""What is known to be wrong here: versions, the directory, segments, settings, the exporter."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice, pairwise
from pathlib import Path
from shlex import quote

from ..advisories import advisories_for
from ..config import Config, ExporterConfig, environment_name
from ..store import archive
from ..store.directory import (
    SEGMENT_SUFFIX,
    SUPPORTED,
    UNSUPPORTED,
    Directory,
    DirectoryError,
    service_path,
)
from ..store.reader import BadSegment
from ..store.services import never_used
from .environment import unknown_variables
from .finding import Finding
from .running import serving_processes
from .segments import look_at_segments
from .sidecar import look_at_sidecar

LEAST_SHARED_MEMORY = 16 << 20
"""Bytes; a container has 64 MiB unless told otherwise, and a worker takes about 1 MiB."""
MOST_SKEW = 2.0

PACKAGES = (
    *("granian", "uvicorn", "hypercorn", "daphne", "gunicorn", "websockets", "wsproto"),
    *("django", "channels", "strawberry-graphql", "starlette", "fastapi", "litestar"),
)


def examine(config: Config, exporter: ExporterConfig) -> list[Finding]:
    """Look at everything; a check of ours that fails is itself a finding."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("versions", _versions),
        ("service", lambda: _service(config)),
        ("directory", lambda: _directory(config)),
        ("shared memory", lambda: _shared_memory(config)),
        ("segments", lambda: _segments(config)),
        ("exporter", lambda: look_at_sidecar(exporter)),
        ("clock", _clock),
        ("settings", _settings),
        ("environment", _environment),
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
    if not SUPPORTED:
        advice = "each worker shows its own numbers by metrics_app(); Linux shares them"
        yield Finding("directory", "note", UNSUPPORTED, advice)
        return
    path = service_path(config.directory, config.service)
    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not above.is_dir():  # so nobody can make it; a link that leads nowhere is none, either
        advice = f"workers keep their numbers to themselves; remove or rename {above}"
        yield Finding("directory", "error", f"{path}: {above} is not a directory", advice)
        return
    try:
        directory = Directory.existing(path)
    except DirectoryError as error:
        advice = "workers keep their numbers to themselves; fix the owner or the mode (0700)"
        yield Finding("directory", "error", str(error), advice)
        return
    if directory is None:
        yield Finding("directory", "note", f"{path} is not there yet")
        return
    directory.close()
    yield Finding("directory", "ok", str(path))


def _shared_memory(config: Config) -> Iterator[Finding]:
    if not SUPPORTED:
        return  # said above
    path = service_path(config.directory, config.service)
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    text = f"{path}: {usage.free >> 20} MiB free of {usage.total >> 20} MiB"
    little = usage.free < LEAST_SHARED_MEMORY
    advice = "give the container more: docker run --shm-size=256m, or a tmpfs volume"
    yield Finding("shared memory", "warning" if little else "ok", text, advice if little else "")


def _segments(config: Config) -> Iterator[Finding]:
    try:
        with Directory(service_path(config.directory, config.service)) as directory:
            found = look_at_segments(directory)
            yield from _archive(directory)
    except DirectoryError:
        return  # said above
    text = f"{found.alive} alive, {found.dead} dead"
    advice = "a sidecar folds them into the archive; is `ws-lifecycle-metrics serve` running?"
    yield Finding("segments", "note" if found.dead else "ok", text, advice if found.dead else "")
    if found.left:
        text = f"{len(found.left)} of another version, whose workers have ended, are not shown"
        advice = "a sidecar or a new worker removes them when they are a day old; now: "
        removal = _removal(directory.path, found.left)
        yield Finding("outdated segments", "note", text, advice + removal)
    if found.running:
        text = f"{found.running} of another version, whose workers run, are not shown"
        advice = "run one version of ws-lifecycle-metrics in the workers and beside them"
        yield Finding("outdated segments", "warning", text, advice)
    for name, why in islice(found.damaged.items(), 1):
        text = f"{len(found.damaged)} cannot be trusted or read, such as {name}: {why}"
        advice = f"they are left out, and nobody removes them from {directory.path}"
        yield Finding("damaged segments", "warning", text, advice)


def _archive(directory: Directory) -> Iterator[Finding]:
    try:
        archive.load(directory)
    except BadSegment as error:
        text = f"{archive.NAME} is not read: {error}"
        advice = "what ended workers counted is missing; it is set aside when the next one ends"
        yield Finding("archive", "warning", text, advice)


def _removal(path: Path, names: list[str]) -> str:
    """Return the shell's command that removes segments and what lies beside them."""
    stems = (name.removesuffix(SEGMENT_SUFFIX) for name in names if name.isprintable())
    return f"cd {quote(str(path))} && rm -f -- {' '.join(f'{quote(stem)}.*' for stem in stems)}"


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
    for name, command in serving_processes():
        for blind, why, advice in _BLIND:
            if blind(command):
                yield Finding("settings", "warning", f"{name}: {why}", advice)
    policy = os.environ.get(environment_name("policy"))
    if policy == "strict":
        text = f"{environment_name('policy')}=strict raises into the application"
        yield Finding("settings", "warning", text, "use observe or shield in production")


def _environment() -> Iterator[Finding]:
    """Name the variables that nobody reads, though they look as if."""
    for name, near in unknown_variables(os.environ).items():
        advice = f"did you mean {near}?" if near else "docs/configuration.md has all names"
        yield Finding("environment", "warning", f"{name} sets nothing", advice)


def _has(*words: str) -> Callable[[list[str]], bool]:
    return lambda command: any(
        argument == word or argument.startswith(word + "=")
        for argument in command
        for word in words
    )


def _granian_keeps_the_dead(command: list[str]) -> bool:
    switch = ("--no-respawn-failed-workers", "--respawn-failed-workers")
    last = next((word for word in reversed(command) if word in switch), switch[0])
    return "granian" in command and last == switch[0]


def _gunicorn_waits_for_ever(command: list[str]) -> bool:
    """Tell if the last timeout is 0: `--timeout 0`, `--timeout=0`, `-t 0` or `-t0`."""
    timeout = ""
    for word, following in pairwise([*command, ""]):
        if match := re.fullmatch(r"--timeout(?:=(.*))?|-t=?(.*)", word):
            timeout = match[1] or match[2] or following
    return "gunicorn" in command and timeout.isdecimal() and int(timeout) == 0


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
        _gunicorn_waits_for_ever,
        "hung workers are never restarted",
        "give gunicorn a --timeout",
    ),
)


def as_json(findings: list[Finding]) -> str:
    """Return the findings as JSON."""
    rows = [{name: getattr(f, name) for name in Finding.__slots__} for f in findings]
    return json.dumps({"exit_code": exit_code(findings), "findings": rows}, indent=2)
