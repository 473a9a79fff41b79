"""Stacks of stuck workers by `py-spy`, where it is installed and was asked for."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..labels import safe_label
from ..watchdog.workers import Health

SECONDS = 10.0
MOST_LINES = 200


def find() -> str | None:
    """Return the program on the path, else in the venv of this interpreter, else None."""
    beside = Path(sys.executable).parent
    return shutil.which("py-spy") or shutil.which("py-spy", path=beside)


class Spy:
    """Looks once into each stall; `look` returns what it saw, by the worker's uuid."""

    def __init__(self, program: str | None = None) -> None:
        self._program = find() if program is None else program
        self._seen: dict[int, tuple[str, ...]] = {}

    async def look(self, health: Sequence[Health]) -> dict[int, tuple[str, ...]]:
        """Look into the workers that do not beat and were not looked into."""
        silent = {h.uuid: h.pid for h in health if h.reason == "loop_blocked" and h.here}
        self._seen = {uuid: lines for uuid, lines in self._seen.items() if uuid in silent}
        for uuid, pid in silent.items():
            if self._program is not None and uuid not in self._seen:
                self._seen[uuid] = await self._dump(self._program, pid)
        return dict(self._seen)

    async def _dump(self, program: str, pid: int) -> tuple[str, ...]:
        try:
            process = await asyncio.create_subprocess_exec(
                *(program, "dump", "--nonblocking", "--pid", str(pid)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return (f"py-spy: {error.strerror}",)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return ("py-spy took too long",)
        lines = output.decode("utf-8", "replace").splitlines()[:MOST_LINES]
        return tuple(safe_label(line) for line in lines)
