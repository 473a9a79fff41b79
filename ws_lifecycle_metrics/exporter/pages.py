"""What each path answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

from ..catalog import STUCK_REASONS
from ..config import ExporterConfig
from ..labels import MAX_LENGTH
from ..store.connections import STATES, Ranked
from ..store.snapshot import package_version
from .client import Answer, Request, refusal
from .health import service_health, worker_health, workers_object
from .index import index
from .live import CollectionError, Live
from .overview import connections_object

METHODS = ("GET", "HEAD")
MOST_CONNECTIONS = 1000
WORKER = "/healthz/"
FILTERS = {"http_route": "route", "state": "state", "stuck": "stuck", "worker": "worker"}
NUMBERS = {"limit": (100, MOST_CONNECTIONS), "offset": (0, 10**9)}
"""Default and most of each."""
VALUES = {"state": STATES, "stuck": ("any", *STUCK_REASONS, "")}
"""What a filter accepts, nothing for those that are not stuck; the others accept anything."""


class Pages:
    """Answers requests whose Host was checked."""

    def __init__(self, config: ExporterConfig, live: Live) -> None:
        self._service = config.service
        self._live = live
        self._pages: dict[str, Callable[[Request, str], Awaitable[Answer]]] = {
            "/": self._index,
            "/metrics": self._metrics,
            "/connections": self._connections,
            "/workers": self._workers,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    async def answer(self, request: Request) -> Answer:
        """Return the page of a request."""
        if request.method not in METHODS:
            return refusal(405, Allow=", ".join(METHODS))
        path, _, query = request.target.partition("?")
        page = self._pages.get(path)
        if path.startswith(WORKER):
            page = self._worker_health
        if page is None:
            return refusal(404)
        try:
            return await page(request, query)
        except CollectionError as error:
            return refusal(503, str(error), Retry_After="1")

    async def _index(self, _request: Request, _query: str) -> Answer:
        try:
            await self._live.check()
            now = await self._live.overview()
        except CollectionError as error:
            return index(self._service, package_version(), str(error))
        return index(self._service, package_version(), now)

    async def _metrics(self, request: Request, _query: str) -> Answer:
        body, content_type = await self._live.metrics(request.headers.get("accept", ""))
        return Answer(200, body, content_type)

    async def _connections(self, _request: Request, query: str) -> Answer:
        try:
            numbers, filters = _parsed(query)
        except ValueError as error:
            return refusal(400, str(error))
        await self._live.check()  # of what nobody can read, none would be an all-clear
        snapshot, connections = await self._live.connections()
        connections = _filtered(connections, filters)
        found = connections_object(self._service, snapshot, connections, **numbers)
        return Answer(200, f"{json.dumps(found)}\n".encode(), "application/json")

    async def _workers(self, _request: Request, _query: str) -> Answer:
        await self._live.check()
        snapshot = await self._live.snapshot()
        found = workers_object(self._service, snapshot, self._live.spied)
        return Answer(200, f"{json.dumps(found)}\n".encode(), "application/json")

    # From the latest look, not from a new one: a check that hangs restarts whom it should not.

    async def _healthz(self, _request: Request, _query: str) -> Answer:
        return service_health(self._live.health)

    async def _worker_health(self, request: Request, _query: str) -> Answer:
        worker = request.target.partition("?")[0].removeprefix(WORKER)
        return worker_health(self._live.health, worker)

    async def _readyz(self, _request: Request, _query: str) -> Answer:
        await self._live.check()
        return Answer(200, b"ok\n")


def _parsed(query: str) -> tuple[dict[str, int], dict[str, str]]:
    """Return the numbers and the filters of a query; raises `ValueError`, naming what is wrong."""
    given = parse_qs(query, keep_blank_values=True, max_num_fields=10)
    for name, values in given.items():
        if name not in NUMBERS and name not in FILTERS:
            raise ValueError(
                f"{name[:MAX_LENGTH]!r}: accepted are {', '.join((*FILTERS, *NUMBERS))}"
            )
        if len(values) > 1:
            raise ValueError(f"{name}: given {len(values)} times, accepted is once")
    texts = {name: value for name, (value,) in given.items()}
    for name, known in VALUES.items():
        if name in texts and texts[name] not in known:
            accepted = ", ".join(value or "nothing" for value in known)
            raise ValueError(f"{name}={texts[name][:MAX_LENGTH]!r}: accepted are {accepted}")
    numbers = {
        name: _number(name, texts[name], most) if name in texts else default
        for name, (default, most) in NUMBERS.items()
    }
    return numbers, {name: texts[name] for name in FILTERS if name in texts}


def _filtered(connections: Ranked, filters: Mapping[str, str]) -> Ranked:
    """Keep what all filters agree with; `stuck=any` are all stuck ones."""
    wanted = {FILTERS[name]: text for name, text in filters.items()}
    stuck = wanted.pop("stuck", None)
    if stuck is not None:
        connections = connections.keep(
            lambda c: bool(c.stuck) if stuck == "any" else c.stuck == stuck
        )
    return connections.keep(lambda c: all(getattr(c, name) == wanted[name] for name in wanted))


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        accepted = f"accepted is a whole number from 0 to {most}"
        raise ValueError(f"{name}={text[:MAX_LENGTH]!r}: {accepted}")
    return int(text)
