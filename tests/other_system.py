"""Runs a piece of Python as if on another system: without what only Linux, or only POSIX, has."""

from __future__ import annotations

import builtins
import io
import os
import signal
import subprocess
import sys
import time
from asyncio import unix_events
from pathlib import Path
from typing import Any

LINUX = {
    os: "posix_fallocate sched_getaffinity memfd_create pidfd_open copy_file_range",
    time: "CLOCK_BOOTTIME",
}
POSIX = {
    os: "geteuid getuid getegid getgid register_at_fork fork preadv pwritev pread pwrite killpg"
    " setsid getpgid fchmod statvfs sysconf getloadavg O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_CLOEXEC",
    signal: "SIGKILL SIGHUP SIGSTOP SIGCONT SIGALRM SIGQUIT setitimer pthread_sigmask pthread_kill",
    time: "clock_gettime clock_gettime_ns",
}
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty")
MISSING = ("/proc", "/dev/shm", "/run/user")


def become(system: str) -> None:
    """Take away what this process would not have there; the standard library keeps its own."""
    _remove(LINUX)
    _hide()
    if system == "windows":
        _remove(POSIX)
        sys.modules.update(dict.fromkeys(MODULES))  # type: ignore[arg-type]  # None: no such module
        unix_events._UnixSelectorEventLoop.add_signal_handler = _no_signals  # type: ignore[method-assign]


def _remove(names: dict[Any, str]) -> None:
    for module, these in names.items():
        for name in these.split():
            if hasattr(module, name):
                delattr(module, name)


def _hide() -> None:
    for name in ("open", "stat", "listdir", "scandir", "mkdir", "access"):
        setattr(os, name, _without_places(getattr(os, name)))
    io.open = builtins.open = _without_places(io.open)


def _without_places(call: Any) -> Any:
    def checked(path: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(path, (str, os.PathLike)) and str(path).startswith(MISSING):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return call(path, *rest, **options)

    return checked


def _no_signals(_loop: Any, *_arguments: Any) -> None:
    raise NotImplementedError


def start(system: str, code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Python with `code` there; its output is in one pipe."""
    root = Path(__file__).parents[1]
    before = f"from tests.other_system import become; become({system!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", before + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root,
        env={**os.environ, "WS_LIFECYCLE_DIRECTORY": str(folder)},
    )


def run(system: str, code: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run it to its end; return exit code and output."""
    with start(system, code, folder, *arguments) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output
