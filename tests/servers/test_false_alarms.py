"""Healthy workers on a busy machine are not called stuck; ten minutes of it are a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.false_alarms import measure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_nothing_is_called_stuck_while_others_take_the_processors(tmp_path: Path) -> None:
    result = measure(4.0, 4, tmp_path)
    assert result.messages
    assert result.readings
    assert not result.alarms
