"""Logs as text: a kept record keeps its traceback, and with it generators that must be freed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from ws_lifecycle_metrics.integrations.graphql_ws import SERVED
from ws_lifecycle_metrics.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything that is logged, as text."""
    lines: list[str] = []
    make = logging.getLogRecordFactory()

    def textual(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        record.msg, record.args = record.getMessage(), ()
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        lines.append(f"{record.msg}\n{record.exc_text or ''}")
        return record

    monkeypatch.setattr(logs, "_said", set())
    monkeypatch.setattr(logs, "_limit", logs.RateLimit())
    logging.setLogRecordFactory(textual)
    yield lines
    logging.setLogRecordFactory(make)


@pytest.fixture(autouse=True)
def nothing_serves() -> None:
    """Forget what conversations have left in this context that were driven by hand and dropped."""
    SERVED.set(None)
