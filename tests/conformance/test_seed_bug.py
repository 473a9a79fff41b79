"""The seed's bug, under the versions that had it; environments are made once, by pip."""

from __future__ import annotations

import pytest

from examples.seed_bug import __main__ as seed


@pytest.mark.slow
def test_all_of_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert seed.main() == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert f"rule='{seed.DUPLICATE}'}} {seed.CONNECTIONS}" in printed
    assert f"rule='{seed.FLOW_ERROR}'}} {seed.CONNECTIONS}" in printed
    assert "ASGI flow error" in printed
    assert "What the wrapper itself changes" in printed
