from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ws_lifecycle_metrics import Config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The configuration of a service that nobody else has."""
    return Config(service="test", directory=str(tmp_path))
