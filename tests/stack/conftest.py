"""The chain is started once: an application with faults on purpose, watched and scraped."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import GRANIAN, Pair, Timing, dial
from tests.servers.sidecar import hanging, sidecar
from tests.stack.chain import Chain, missing, running

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMING = Timing(stuck=2.0, megamiss=1.0)


@dataclass
class Scene:
    """Who plays: the chain and two workers with clients."""

    chain: Chain
    pair: Pair


@contextmanager
def trouble(url: str) -> Iterator[None]:
    """Clients that meet faults over and over: stuck in closing, and left without a close."""
    over = threading.Event()

    def meet(path: str, patience: float) -> None:
        while not over.is_set():
            with suppress(Exception), dial(url + path) as client:  # half of them meet a hung worker
                client.recv(timeout=patience)
            over.wait(0.5)

    threads = [
        threading.Thread(target=meet, args=call, daemon=True)
        for call in (("/closing", 0.1), ("/closing", 0.1), ("/draining", 6.0), ("/draining", 6.0))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=15)


def skip_or_fail(lacking: list[str]) -> None:
    """Skip with the reason; in CI, where all is installed, nothing may be skipped."""
    reason = f"not installed: {', '.join(lacking)}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A Granian with two workers, a stuck connection, the sidecar and the chain."""
    if lacking := missing():
        skip_or_fail(lacking)
    folder = tmp_path_factory.mktemp("stack")
    options = {**TIMING.options(), "stuck_closing": 1.0}
    with ExitStack() as stack:
        server = stack.enter_context(hanging(GRANIAN, folder, **options))
        watcher = stack.enter_context(sidecar(folder))
        pair = Pair(server, watcher, TIMING)
        stack.callback(pair.close)
        pair.reach_both()
        chain = stack.enter_context(running(folder, watcher.port))
        stack.enter_context(trouble(server.url))
        yield Scene(chain, pair)
