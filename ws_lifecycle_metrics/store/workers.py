"""The workers of this process: one a thread, made when its first scope comes."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..config import Config
from . import archive
from . import layout as at
from .directory import Directory, DirectoryError, service_path
from .process import at_forked_exit
from .reader import Contents, decode
from .totals import Totals, add_segment
from .worker import Worker

Place = tuple[str, str]
"""Directory and service."""

logger = logging.getLogger("ws_lifecycle_metrics")


class _Workers(threading.local):
    def __init__(self) -> None:
        self.by_place: dict[Place, Worker] = {}


_here = _Workers()
_all: list[Worker] = []
_ended: dict[Place, Totals] = {}
"""What workers have counted that ended and that only this process could read."""
_observed: dict[Place, Config] = {}
"""What the middlewares of this process were told."""
_lock = threading.RLock()
"""Held while the lists change, which no running worker waits for, and while the process forks: a
child must know all segments of its parent. Not a plain lock: a signal's handler may fork."""
_taking = threading.Lock()


def observe(config: Config) -> None:
    """Say that a middleware of this process writes by this configuration."""
    _observed.setdefault((config.directory, config.service), config)


def observed() -> Config:
    """Return the configuration of this process's middleware; the environment's if it has not one.

    Of several services, who reads has to say which one is meant.
    """
    return next(iter(_observed.values())) if len(_observed) == 1 else Config()


def current(config: Config) -> Worker:
    """Return the worker of this thread for the service of `config`; the first call makes it.

    A thread runs one event loop at a time, whatever the library, so it stands for the loop.
    """
    place = (config.directory, config.service)
    worker = _here.by_place.get(place)
    return worker if worker is not None else _start(config, place)


def existing(config: Config) -> Worker | None:
    """Return the worker of this thread, or None where no scope has come yet."""
    return _here.by_place.get((config.directory, config.service))


def publish(config: Config) -> None:
    """Have this thread's worker write all that it has counted, for whoever reads next."""
    worker = existing(config)
    if worker is not None:
        _guarded(worker, worker.publish, time.monotonic_ns())


def _guarded(worker: Worker, step: Callable[..., object], *arguments: object) -> None:
    try:
        step(*arguments)
    except Exception as error:  # noqa: BLE001  # what was written before can still be read
        logger.debug("a step of a worker failed: %r", error)
        worker.count_internal_error()


def local_workers(config: Config) -> list[Worker]:
    """Return the workers of this process for the service of `config`, in any thread."""
    place = (config.directory, config.service)
    return [worker for worker in tuple(_all) if _place(worker) == place]


def unshared(config: Config) -> tuple[Totals, list[Contents]]:
    """Return what only this process can read: the totals of ended workers, living segments."""
    with _lock:
        living = [
            decode(worker.segment.name, worker.segment.contents(), alive=True)
            for worker in local_workers(config)
            if not worker.segment.shared
        ]
        return dict(_ended.get((config.directory, config.service), {})), living


def own(config: Config) -> tuple[list[Contents], bool]:
    """Return the segments of this process's workers, and whether others can read them all."""
    with _lock:
        workers = local_workers(config)
        segments = [decode(w.segment.name, w.segment.contents(), alive=True) for w in workers]
        return segments, all(worker.segment.shared for worker in workers)


def _place(worker: Worker) -> Place:
    return worker.config.directory, worker.config.service


def _start(config: Config, place: Place) -> Worker:
    with _lock:
        close_ended()
        try:
            worker = _start_shared(config)
        except (DirectoryError, OSError) as error:
            logger.warning("metrics stay in this process, no other can read them: %s", error)
            worker = _start_unshared(config)
        _here.by_place[place] = worker
        _all.append(worker)
        at_forked_exit(_close_all)
    directory = worker.segment.directory
    if directory is not None:
        _guarded(worker, archive.fold, directory, worker.reader)
    return worker


def _start_shared(config: Config) -> Worker:
    directory = Directory(service_path(config.directory, config.service), create=True)
    try:
        worker = Worker(config, directory)
    except BaseException:
        directory.close()
        raise
    try:
        worker.segment.publish()
    except BaseException:
        worker.segment.remove()
        raise
    return worker


def _start_unshared(config: Config) -> Worker:
    worker = Worker(config, None)
    taken = {other.segment.header[at.SLOT] for other in _all if not other.segment.shared}
    worker.segment.header[at.SLOT] = next(n for n in range(len(taken) + 1) if n not in taken)
    return worker


def renew(worker: Worker) -> Worker:
    """Give this thread a new worker in place of one whose file was removed."""
    logger.warning("the file of the metrics was removed: a new one begins at 0")
    with _lock:
        worker.segment.leave()
        worker.watch = None
        _all[:] = [other for other in _all if other is not worker]
    return _succeeded(worker, _start(worker.config, _place(worker)))


def share(worker: Worker) -> Worker | None:
    """Give this thread a worker that others can read, in place of one that stayed in this process.

    None where that still cannot be had. What was counted goes into the archive, so that nobody
    misses it, and whoever reads in this process finds it there.
    """
    path = service_path(worker.config.directory, worker.config.service)
    with (
        suppress(DirectoryError, OSError),
        _lock,
        # Not while a snapshot is taken here, which would have the counts twice, nor waiting for it.
        _unless_held(_taking) as free,
        Directory(path, create=True) as directory,
        directory.exclusive() as locked,
    ):
        if free and locked and worker in _all:  # and not in a child that was forked
            return _share_locked(worker, directory)
    return None


def _share_locked(worker: Worker, directory: Directory) -> Worker:
    place, old = _place(worker), worker.segment
    new = _start_shared(worker.config)
    worker.publish(time.monotonic_ns())
    old.header[at.SLOT] = new.segment.header[at.SLOT]
    contents = decode(old.name, old.contents(), alive=True)
    try:
        archive.absorb(directory, contents)
    except OSError:
        add_segment(_ended.setdefault(place, {}), contents)
    worker.watch = None
    _all[_all.index(worker)] = _here.by_place[place] = new
    logger.info("the metrics are shared now: others can read them")
    return _succeeded(worker, new)


@contextmanager
def _unless_held(lock: threading.Lock) -> Iterator[bool]:
    free = lock.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            lock.release()


def _succeeded(worker: Worker, new: Worker) -> Worker:
    new.connections = worker.connections
    if worker.served is not None:  # HTTP scopes hold it that go on; WebSockets move their own
        worker.served.move(new)
    return new


def close_ended() -> None:
    """Close the segments of threads that ended, as test clients start one for each session."""
    with _lock:
        for worker in [w for w in _all if not w.thread.is_alive()]:
            _all.remove(worker)
            if not worker.segment.shared:
                _guarded(worker, worker.publish, time.monotonic_ns())
                contents = decode(worker.segment.name, worker.segment.contents(), alive=False)
                add_segment(_ended.setdefault(_place(worker), {}), contents)
            _guarded(worker, worker.close)
            worker.release()


def _close_all() -> None:
    with _lock:  # the watchdog's thread may be closing one
        for worker in _all:
            _guarded(worker, worker.close)
        _all.clear()


def taking() -> threading.Lock:
    """Return what is held in this process while a snapshot is taken."""
    return _taking


def _forget_all() -> None:
    """In a forked child: the segments are the parent's, and so are their locks."""
    global _here, _lock, _taking
    for worker in _all:
        _guarded(worker, worker.forget)
    _all.clear()
    _ended.clear()
    _here, _lock, _taking = _Workers(), threading.RLock(), threading.Lock()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_forget_all,
    )
