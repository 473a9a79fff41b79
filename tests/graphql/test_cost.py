"""What a result costs with the extension, beside the same schema without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.subscriptions import BAR, measure, variants

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_result_costs_at_most_a_quarter_more(tmp_path: Path):
    medians = measure(variants(str(tmp_path)))
    assert medians["middleware + extension"] <= BAR * medians["middleware"]
    assert medians["middleware + extension"] < medians["OpenTelemetryExtension"]
