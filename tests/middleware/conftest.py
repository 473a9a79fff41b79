from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.store.workers import existing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """The configuration of a service that nobody else has."""
    config = Config(service="test", directory=str(tmp_path))
    yield config
    worker = existing(config)
    if worker is not None:
        worker.close()
