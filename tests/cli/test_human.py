"""What a person reads: durations and amounts, colours, and what an encoding lacks."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_lifecycle_metrics.cli.human import amount, duration, size
from ws_lifecycle_metrics.cli.screen import text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0, "0.0s"),
        (0.44, "0.4s"),
        (0.949, "0.9s"),
        (0.96, "1s"),
        (12.4, "12s"),
        (59.6, "1m"),
        (60, "1m"),
        (192, "3m 12s"),
        (3600, "1h"),
        (3601, "1h"),
        (3660, "1h 1m"),
        (86399, "23h 59m"),
        (86400 * 2 + 3 * 3600 + 59, "2d 3h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text", "in_bytes"),
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (1000, "1.0k", "1.0 kB"),
        (1234, "1.2k", "1.2 kB"),
        (99_949, "99.9k", "99.9 kB"),
        (99_950, "100k", "100 kB"),
        (999_499, "999k", "999 kB"),
        (999_500, "1.0M", "1.0 MB"),
        (2**63, "9.2E", "9.2 EB"),
    ],
)
def test_an_amount_is_short(number: int, text: str, in_bytes: str) -> None:
    assert amount(number) == text
    assert size(number) == in_bytes


@given(st.integers(0, 2**64 - 1))
def test_every_word_of_a_segment_is_short(number: int) -> None:
    assert len(amount(number)) <= 5
    assert len(size(number)) <= 7


@given(st.floats(0, 86400 * 999))
def test_every_duration_is_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 8


def test_what_others_chose_is_harmless_for_a_terminal() -> None:
    assert text("[red]\x1b[2J\u202e\n\ud800").plain == r"[red]\x1b[2J\u202e\n\ud800"


def doctor_on_a_terminal(directory: Path, **env: str) -> str:
    """Run the doctor on a terminal of its own; return what it shows there."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if "COLOR" not in name}
    command = (sys.executable, "-m", "ws_lifecycle_metrics", "doctor", "--directory", directory)
    shown = b""
    try:
        with subprocess.Popen(
            command, env={**plain, "TERM": "xterm-256color", **env}, stdout=theirs
        ) as process:
            os.close(theirs)
            with suppress(OSError):  # what a terminal reads as when its last writer has gone
                while select.select([ours], [], [], 30)[0]:
                    shown += os.read(ours, 65536)
            process.kill()  # nothing, if it has ended
    finally:
        os.close(ours)
    return shown.decode()


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
    ids=["a terminal", "NO_COLOR", "an empty NO_COLOR", "a terminal without colours"],
)
def test_colours_are_left_out_where_nobody_wants_them(
    tmp_path: Path, env: dict[str, str], coloured: bool
) -> None:
    shown = doctor_on_a_terminal(tmp_path, **env)
    assert "ok       python: " in shown.replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert ("\x1b[32m" in shown) is coloured


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    place = tmp_path / "gr\u00fc\u00df \u2026 \u0159"
    found = subprocess.run(
        [sys.executable, "-m", "ws_lifecycle_metrics", "doctor", "--directory", place],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert "gr\u00fc\u00df \\u2026 \\u0159" in found.stdout.decode("latin-1")
    assert not found.stderr
