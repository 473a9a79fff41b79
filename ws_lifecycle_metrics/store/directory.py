"""The directory in which the workers of one service keep their segments, and its trust."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, so nothing is shared
    fcntl = None  # type: ignore[assignment]  # tested before each use

SEGMENT_SUFFIX = ".segment"
SIDE_SUFFIXES = (".stacks", ".faults")
"""Files of the same name that belong to a segment and go with it."""
SUPPORTED = fcntl is not None and hasattr(os, "posix_fallocate") and hasattr(os, "preadv")
"""Whether this system has what shared segments need; where not, memory stays in-process."""
UNSUPPORTED = "this system has no file locks or no posix_fallocate"


OUT_OF_MEANS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What says nothing of a file, only that this process can open no more of them just now."""


class DirectoryError(Exception):
    """The directory cannot be used; the text says why, without its contents."""


class DirectoryMissingError(DirectoryError):
    """Nobody has made it yet."""


def default_base() -> Path:
    """Return where services are kept unless configured: shared memory, else temporary files.

    The same for every process of a user, whatever its session: a worker and a sidecar that
    were started differently must find each other.
    """
    uid = os.getuid() if hasattr(os, "getuid") else 0
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else Path(tempfile.gettempdir())
    return base / f"ws-lifecycle-metrics-{uid}"


def service_path(base: str, service: str) -> Path:
    """Return the directory of `service` below `base` (empty: the default one)."""
    return (Path(base) if base else default_base()) / service


def _check(path: Path, status: os.stat_result) -> None:
    """See that only this user can write a directory; raises `DirectoryError`."""
    if not stat.S_ISDIR(status.st_mode):
        raise DirectoryError(f"{path}: not a directory")
    if status.st_uid != os.geteuid():
        raise DirectoryError(f"{path}: owned by user {status.st_uid}")
    if status.st_mode & 0o022:
        raise DirectoryError(f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others write")


class Directory:
    """An open directory that only this user can write.

    All files are opened relative to it, so nobody can exchange it under us. What stands above it
    is the user's choice; the default base, at a path that others could take first, must be ours.
    Raises `DirectoryError` where it is missing, foreign or writable by others, and `OSError`
    where this process is out of descriptors or memory.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not SUPPORTED:
            raise DirectoryError(UNSUPPORTED)
        self.path = path
        try:
            if create:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.parent == default_base():
                _check(path.parent, os.stat(path.parent, follow_symlinks=False))
            if create:
                path.mkdir(mode=0o700, exist_ok=True)
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in OUT_OF_MEANS:
                raise
            missing = isinstance(error, FileNotFoundError)
            kind = DirectoryMissingError if missing else DirectoryError
            raise kind(f"{path}: {error.strerror}") from error
        try:
            _check(path, os.fstat(self.fd))
        except DirectoryError:
            self.close()
            raise

    @classmethod
    def existing(cls, path: Path) -> Directory | None:
        """Open a directory for who only reads; None where no worker has made it so far.

        Raises `DirectoryError` also where no worker of this user could make it.
        """
        try:
            return cls(path)
        except DirectoryMissingError:
            above = next(parent for parent in path.absolute().parents if os.path.exists(parent))
            if not os.access(above, os.W_OK | os.X_OK):
                raise
            return None

    def close(self) -> None:
        """Close the directory, once; the files stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, name: str, flags: int) -> int:
        """Open a file of the directory, never through a symbolic link; return its descriptor."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)

    def rename(self, old: str, new: str) -> None:
        """Rename a file of the directory."""
        os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file anew: readers find the old content or the new one, never a part of it.

        Raises `OSError` where there is no room for both; the old one stays.
        """
        draft = f".{name}"
        with suppress(FileNotFoundError):  # left by one that was killed
            os.unlink(draft, dir_fd=self.fd)
        fd = self.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        self.rename(draft, name)

    def segments(self) -> list[str]:
        """Return the names of all segment files, dead ones included."""
        return [name for name in self._names() if not name.startswith(".")]

    def drafts(self) -> list[str]:
        """Return the names of segments that are being made, or whose maker was killed."""
        return [name for name in self._names() if name.startswith(".")]

    def _names(self) -> list[str]:
        return sorted(name for name in os.listdir(self.fd) if name.endswith(SEGMENT_SUFFIX))

    def take_slot(self) -> tuple[int, int]:
        """Take the lowest number that no living worker has; return it and its open lock.

        The number is had for as long as the lock is open: the kernel drops it with the process.
        """
        for slot in count():
            fd = self.open(f"slot-{slot}", os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK)
            locked = try_lock(fd, exclusive=True)
            if locked:
                return slot, fd
            os.close(fd)
            if locked is None:  # no other number would do
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        raise AssertionError("unreachable")

    def remove(self, segment: str, *, side_files_only: bool = False) -> None:
        """Remove a segment's side files, and unless told otherwise, at last, the segment."""
        stem = segment.removesuffix(SEGMENT_SUFFIX)
        # With the drafts: whoever was writing one may have been killed.
        names = [f"{dot}{stem}{suffix}" for suffix in SIDE_SUFFIXES for dot in (".", "")]
        for name in names if side_files_only else (*names, segment):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.fd)

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Hold the directory's lock, or yield False where another process holds it."""
        fd = self.open("lock", os.O_RDWR | os.O_CREAT)
        locked = False
        try:
            locked = try_lock(fd, exclusive=True) is True
            yield locked
        finally:
            if locked:  # or a child that was forked meanwhile would hold it
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def is_held(fd: int) -> bool:
    """Whether a segment's worker lives: it holds an exclusive lock, which SIGKILL drops.

    Where nobody can tell it lives: it would be counted twice if it was taken for dead.
    """
    return try_lock(fd, exclusive=False) is not True


def try_lock(fd: int, *, exclusive: bool) -> bool | None:
    """Lock an open file without waiting: True if had, False if held elsewhere, None if unknown."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
