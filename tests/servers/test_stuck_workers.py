"""A worker that hangs is told by the sidecar, whatever hangs it, while the other one serves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import (
    DEFAULT,
    GRANIAN,
    LATE,
    SHORT,
    UVICORN,
    Timing,
    hang_in_every_way,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "timing", [SHORT, pytest.param(DEFAULT, marks=pytest.mark.slow)], ids=["short", "default"]
)
def test_every_blocker_is_told_with_its_reason(timing: Timing, tmp_path: Path) -> None:
    servers = (UVICORN, GRANIAN)
    with ThreadPoolExecutor(len(servers)) as threads:  # both at once, since most of it is waiting
        folders = [tmp_path / server.name for server in servers]
        found = threads.map(hang_in_every_way, servers, folders, [timing] * len(servers))
        for server, everything in zip(servers, found, strict=True):
            for seen in everything:
                print(server.name, seen)  # noqa: T201  # the figures, for those who ask for them
                assert seen.after <= timing.stuck + LATE + 0.5
                assert seen.others_age < 2
                assert seen.slowest < 2  # the bar is 0.1 s on a machine that is not busy
