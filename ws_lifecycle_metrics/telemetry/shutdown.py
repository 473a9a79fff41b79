"""Ends OpenTelemetry's providers in bounded time."""

from __future__ import annotations

import threading
import time
from typing import Any

from .logs import log_fault

SECONDS = 5.0


def shutdown(*providers: Any, timeout: float = SECONDS) -> bool:
    """Shut providers down, all at once and within `timeout` seconds; return whether all ended.

    With a collector that does not answer, a provider's own `shutdown()` takes up to half a
    minute. What is not exported in time is lost, and what still waits keeps no process alive.
    It blocks: in a coroutine, `await asyncio.to_thread(shutdown, *providers)`. Make providers
    with `shutdown_on_exit=False`, or they wait at the process's exit all the same.
    """
    threads = [
        threading.Thread(target=_end, args=(provider,), name="otel-shutdown", daemon=True)
        for provider in providers
    ]
    until = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _end(provider: Any) -> None:
    end = getattr(provider, "shutdown", None)
    if end is None:  # it is the API's own, as nobody set another one
        return
    try:
        end()
    except Exception as error:  # noqa: BLE001  # one provider's fault is not the other's
        log_fault(error)
