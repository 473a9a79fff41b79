"""The sidecar's HTTP server: who is served, and how many at once."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

try:
    import resource
except ImportError:  # Windows, where descriptors have no such limit
    resource = None  # type: ignore[assignment]  # tested before its use

from ..config import ExporterConfig
from ..store.snapshot import Snapshot
from ..telemetry.logs import log_fault
from .access import Access, BusyError
from .client import MAX_HEADER, Answer, Client, Request, refusal
from .live import Live
from .pages import Pages
from .watch import Watch

ABSOLUTE = re.compile(r"https?://([^/?#@]*)([/?#].*)?", re.IGNORECASE)
BRACKETED = re.compile(r"\[([^][]*)\](?::[0-9]*)?")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MOST_REFUSED = 64
"""Clients beyond the bound that may be reading their 503 at once; more are cut off."""
BATCH = 16
"""Clients that are accepted before the first of them is counted, or may be cut off."""
WAITING = 1024
"""Clients that may wait to be accepted."""
SPARE = MOST_REFUSED + 4 * BATCH + 32
"""Descriptors that are kept for all but the clients within the bound."""

logger = logging.getLogger("ws_lifecycle_metrics")


class Exporter:
    """Serves the numbers of a service until it is closed.

    It changes nothing in the application, and tidies up after dead workers; only with
    `recycle_stuck` it sends signals. Everything that a client can make it do is bounded: size and
    time of a request, time of a response, connections, collections. Raises `ConfigError` for a
    `web_config_file` that is not accepted.
    """

    def __init__(self, config: ExporterConfig) -> None:
        self.config = config
        self.access = Access(config.web_config_file)
        self._live = Live(config)
        self._pages = Pages(config, self._live)
        self._watch = Watch(config, self._live)
        self._names = {_name(name) for name in (*LOCAL_NAMES, config.host, *config.allowed_hosts)}
        self._served: set[asyncio.Task[None]] = set()
        self._refused: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._most = _most_clients(config.max_clients)

    def take(self) -> Snapshot:
        """Collect for another thread, which waits. Raises what collecting raises."""
        return self._live.take()

    async def start(self) -> tuple[str, int]:
        """Listen; return the address and the port. Raises OSError, if the port is in use too."""
        self._server = await asyncio.start_server(
            self._accept, self.config.host, self.config.port, limit=MAX_HEADER, backlog=BATCH
        )
        for listening in self._server.sockets:
            with listening.dup() as same:
                same.listen(WAITING)
        self._watch.start()
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def aclose(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        await self._watch.aclose()
        tasks = self._served | self._refused
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.access.close()
        self._live.close()

    async def __aenter__(self) -> Exporter:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._served) < self._most:
            client = Client(self.config, self.access, reader, writer)
            own = _name(str((writer.get_extra_info("sockname") or ("",))[0]))
            self._spawn(self._served, client.serve(lambda request: self._answer(request, own)))
        elif len(self._refused) < MOST_REFUSED:
            full = refusal(503, "too many connections", Retry_After="1")
            client = Client(self.config, self.access, reader, writer)
            self._spawn(self._refused, client.refuse(full))
        else:
            writer.transport.abort()

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _answer(self, request: Request, own: str) -> Answer:
        """Answer if the client means us: a page of another site that rebinds its name does not.

        `own` is the address that it connected to, which no name can stand for.
        """
        authority = request.headers.get("host", "")
        if absolute := ABSOLUTE.fullmatch(request.target):
            # As a proxy is asked; such a target stands for the Host (RFC 9112, section 3.2.2).
            authority, path = absolute.groups()
            request = replace(request, target=f"/{(path or '').removeprefix('/')}")
        host = _name(authority)
        if not host or (host not in self._names and host != own):
            return refusal(421, "this Host is not served here; allowed_hosts adds names")
        try:
            if not await self.access.admits(request.headers.get("authorization", "")):
                return refusal(401, WWW_Authenticate='Basic realm="ws-lifecycle-metrics"')
            return await self._pages.answer(request)
        except BusyError:
            return refusal(503, "too many passwords at once", Retry_After="1")
        except Exception as error:  # noqa: BLE001  # a fault in one answer must not end the connection
            log_fault(error)
            return refusal(500)


def _most_clients(wanted: int) -> int:
    """Return how many clients the limit of open files allows, at most those wanted.

    Without a descriptor for the next one asyncio would log that for each that waits, each second.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    if limit < 0 or limit - SPARE >= wanted:  # negative: there is none
        return wanted
    most = max(1, limit - SPARE)
    logger.warning("max_clients is %s: the limit of open files is %s", most, limit)
    return most


def _name(host: str) -> str:
    """Return the name in a Host header or in an option, without brackets and port."""
    if bracketed := BRACKETED.fullmatch(host):
        host = bracketed[1]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.rstrip(".").lower()
