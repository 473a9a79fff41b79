"""A worker that hangs is told by the sidecar, whatever hangs it, while the other one serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.blockers import BLOCKERS, GRANIAN, LATE, SHORT, UVICORN, pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.harness import Server


@pytest.mark.parametrize("server", [UVICORN, GRANIAN], ids=lambda server: server.name)
def test_every_blocker_is_told_with_its_reason(server: Server, tmp_path: Path) -> None:
    with pair(server, tmp_path, SHORT) as both:
        for blocker in BLOCKERS:
            seen = both.hang(blocker)
            print(server.name, seen)  # noqa: T201  # the figures, for those who ask for them
            assert seen.after <= SHORT.stuck + LATE + 0.5
            assert seen.others_age < 2
            assert seen.slowest < 2  # the bar is 0.1 s on a machine that is not busy
