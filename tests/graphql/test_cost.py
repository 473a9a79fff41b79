"""What a result costs with the extension, beside the same schema without it."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from benchmarks.subscriptions import BAR, EXTENSION, MIDDLEWARE, OTEL_ON, samples, variants

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_result_costs_at_most_a_quarter_more(tmp_path: Path):
    medians = {name: median(s) for name, s in samples(variants(str(tmp_path)), 25).items()}
    assert medians[EXTENSION] <= BAR * medians[MIDDLEWARE]
    assert medians[EXTENSION] < medians[OTEL_ON]
