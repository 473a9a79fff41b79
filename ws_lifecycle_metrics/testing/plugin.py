"""The pytest fixture `asgi_lifecycle`: a test fails if its application broke the protocol.

In a conftest.py: `pytest_plugins = ["ws_lifecycle_metrics.testing.plugin"]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..config import Config
from ..conversation import ProtocolViolation
from ..middleware import LifecycleMiddleware
from ..protocol import RULES, Rule, Severity
from .recorder import ASGIApp, Entry, Recorder

_RANKS = {Severity.INFO: 0, Severity.WARNING: 1, Severity.ERROR: 2}


class Guard:
    """Wraps applications, and knows what they and their server did wrong."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # The clients of frameworks make scopes with less in it than a server's has to have.
        self._ignored = {"server.scope-invalid"}
        self._least = Severity.WARNING
        self._raised: list[tuple[Entry, Rule]] = []
        self.entries: list[Entry] = []

    def __call__(self, app: ASGIApp) -> Recorder:
        """Return `app`, recorded: the test fails at its end if a rule was broken."""
        return Recorder(app, lambda scope: self.entries.append)

    def strict(self, app: ASGIApp) -> ASGIApp:
        """Return `app` under the policy strict: an error raises `ProtocolViolation` at once.

        The test fails at its end, too, if the application swallowed that.
        """
        config = Config(policy="strict", directory=str(self._directory), service="test")
        judged = LifecycleMiddleware(self(app), config=config)

        async def strict(scope: Any, receive: Any, send: Any) -> Any:
            try:
                return await judged(scope, receive, send)
            except ProtocolViolation as violation:
                self._note_raised(violation.rule)
                raise

        return strict

    def _note_raised(self, rule: Rule) -> None:
        """Note that the test was told of the last breach of a rule, and may have asked for it."""
        for entry in reversed(self.entries):
            if rule in entry.findings:
                self._raised.append((entry, rule))
                return
            if entry.what == "raised" and entry.detail["error"] == ProtocolViolation.__name__:
                self._raised.append((entry, RULES["app.exception"]))  # it is ours

    def ignore(self, *rules: str, below: Severity | str | None = None) -> None:
        """Suppress rules by id, or all below a severity; raises ValueError for an unknown id."""
        unknown = [rule for rule in rules if rule not in RULES]
        if unknown:
            raise ValueError(f"no rule is called {unknown[0]!r}")
        self._ignored.update(rules)
        if below is not None:
            self._least = Severity(below)

    @property
    def findings(self) -> list[Rule]:
        """The broken rules that count: by default warnings and errors."""
        return [
            rule
            for entry in self.entries
            for rule in entry.findings
            if self._counts(rule) and (entry, rule) not in self._raised
        ]

    def _counts(self, rule: Rule) -> bool:
        return rule.id not in self._ignored and _RANKS[rule.severity] >= _RANKS[self._least]

    def timeline(self) -> str:
        """Return all events as text, each with the rules that it broke below it."""
        if not self.entries:
            return "nothing happened"
        began, lines = self.entries[0].at, []
        for entry in self.entries:
            detail = " ".join(f"{key}={value}" for key, value in entry.detail.items())
            lines.append(f"{entry.at - began:8.3f}  {entry.what} {entry.event} {detail}".rstrip())
            lines += [
                f"          ^ {rule.id}: {rule.meaning}; {rule.hint}"
                for rule in entry.findings
                if self._counts(rule)
            ]
        return "\n".join(lines)


@pytest.fixture
def asgi_lifecycle(tmp_path: Path) -> Iterator[Guard]:
    """Wrap an application with it; the test fails if a rule was broken, and shows the timeline."""
    guard = Guard(tmp_path)
    yield guard
    if guard.findings:
        broken = ", ".join(dict.fromkeys(rule.id for rule in guard.findings))
        pytest.fail(f"the protocol was broken: {broken}\n{guard.timeline()}", pytrace=False)
