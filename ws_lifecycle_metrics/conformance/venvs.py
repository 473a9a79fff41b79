"""A server in a version of its own: an environment beside the user's, made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECONDS = 300


class InstallError(Exception):
    """The version could not be installed; the text is pip's last line."""


def cache_directory() -> Path:
    """Return where environments are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return base.expanduser() / "ws-lifecycle-metrics" / "environments"
    except RuntimeError as error:  # a container's user that no list of users has
        raise InstallError("this user has no home directory; set XDG_CACHE_HOME") from error


def environment(requirements: Sequence[str], *, beside: bool = True) -> str:
    """Return the Python of an environment with `requirements`, made if it isn't there yet.

    `beside`: what it lacks is taken from the environment of this process, so that the user's
    application runs in it. Raises `InstallError`.
    """
    here = sysconfig.get_path("purelib") if beside else ""
    key = "\n".join([*requirements, sys.version, here])
    name = f"{requirements[0].replace('==', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    place = cache_directory() / name
    python = place / "bin" / "python"
    if not python.exists():
        fresh = _folder_beside(place)
        try:
            _make(fresh, requirements, here)
            _take_place(fresh, place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return str(python)


def _folder_beside(place: Path) -> Path:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        why = f"no environment can be made in {place.parent}: {error.strerror}"
        raise InstallError(f"{why}; XDG_CACHE_HOME names another place") from error


def _take_place(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)  # whole or not at all; its scripts are never used, only its python
    except OSError:
        if not place.exists():  # else another process was faster
            raise


def _make(place: Path, requirements: Sequence[str], here: str) -> None:
    own_pip = not _has_pip()
    try:
        venv.EnvBuilder(with_pip=own_pip, symlinks=True).create(place)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"no environment can be made here: {error}") from error
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip"] if own_pip else [*_host_pip(), "--python", python]
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", *requirements]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"pip took longer than {INSTALL_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallError(lines[-1] if lines else "pip failed")
    if here:
        _put_beside(place, here)


def _host_pip() -> list[str]:
    """Return the pip that can fill another environment: this one's, or the base Python's."""
    for python in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        done = subprocess.run(
            [python, "-m", "pip", "--version"], capture_output=True, timeout=60, check=False
        )
        if done.returncode == 0:
            return [python, "-m", "pip"]
    return []


def _has_pip() -> bool:
    return bool(_host_pip())


def _put_beside(place: Path, here: str) -> None:
    # addsitedir, since a plain path would leave out the .pth files of editable installs. It
    # comes after the environment's own packages, which hence win.
    library = next((place / "lib").glob("python*")) / "site-packages"
    (library / "zz_beside.pth").write_text(f"import site; site.addsitedir({here!r})\n")
