"""A real exporter on a free port of the loopback."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ws_lifecycle_metrics.config import ExporterConfig
from ws_lifecycle_metrics.exporter.server import Exporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    Serving = Callable[..., AbstractAsyncContextManager[tuple[Exporter, httpx.AsyncClient]]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """`async with serving(**options) as (exporter, http)`: segments are in `tmp_path`."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[tuple[Exporter, httpx.AsyncClient]]:
        given = {"service": "test", "directory": str(tmp_path), "host": "127.0.0.1", **options}
        exporter = Exporter(ExporterConfig(port=0, **given))
        host, port = await exporter.start()
        base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        try:
            async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=20) as http:
                yield exporter, http
        finally:
            await exporter.aclose()

    return start
