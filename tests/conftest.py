from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ws_lifecycle_metrics.store import workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Let no test meet another's workers in this process, nor the files that they hold open."""
    yield
    for worker in workers._all:
        worker.watch = None
    workers._close_all()
    workers._here.by_place.clear()
    workers._ended.clear()
    workers._observed.clear()
