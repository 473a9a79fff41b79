from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import hypothesis  # noqa: F401  # before anything is frozen: its plugins are looked for by referrers
import pytest

from ws_lifecycle_metrics.store import totals, workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Let no test meet another's workers in this process, their files, nor what it counted."""
    yield
    for worker in workers._all:
        worker.watch = None
    workers._close_all()
    workers._here.by_place.clear()
    workers._ended.clear()
    workers._observed.clear()
    totals._here.clear()


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> None:
    """Spare each collection the modules of all frameworks: it takes a tenth of a second else."""
    gc.collect()
    gc.freeze()
