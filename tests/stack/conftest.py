"""The chain is started once: an application with faults on purpose, watched and scraped."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import GRANIAN, Pair, Timing
from tests.servers.sidecar import hanging, sidecar
from tests.stack.chain import Chain, missing, running

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMING = Timing(block=60.0, stuck=2.0, megamiss=1.0)


@dataclass
class Scene:
    """Who plays: the chain and two workers with clients."""

    chain: Chain
    pair: Pair


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
        yield Scene(chain, pair)
