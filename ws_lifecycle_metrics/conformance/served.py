"""What the servers import: the reference application, or the user's with everything noted."""

from __future__ import annotations

import os
from typing import Any

from ..testing.recorder import Recorder
from .journal import TARGET, from_environment, run_of
from .load import load


def _make() -> Any:
    target = os.environ.get(TARGET)
    if not target:
        from .reference import make_app

        return make_app()
    from ..middleware import LifecycleMiddleware

    journal = from_environment()

    def watch(scope: Any) -> Any:
        run = run_of(scope)
        return lambda entry: journal.write(run, entry)

    recorder = Recorder(LifecycleMiddleware(load(target)), watch)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # Only whether the server answers is asked by HTTP, which an application need not speak.
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await recorder(scope, receive, send)

    return app


app = _make()
