from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ws_lifecycle_metrics.store import workers


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """End a test that hangs, as one that opens a FIFO might."""

    def hang(*_: object) -> None:
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(1200)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Let no test meet another's workers in this process."""
    yield
    workers._close_all()
    workers._here.by_place.clear()
    workers._ended.clear()
