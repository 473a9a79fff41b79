"""What came of it, as data for every form of report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..protocol import RULES, Rule, Severity
from .rules import HANGS, WIRE_RULES


def rule(id: str) -> Rule:
    """Return a rule of the protocol or of the wire."""
    return RULES.get(id) or WIRE_RULES[id]


def label(name: str, version: str) -> str:
    """Return a server's name with its version: of one server several may be run."""
    return f"{name} {version}".rstrip()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline; `at` in seconds since the scenario began, `side` app or client."""

    at: float
    side: str
    text: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scenario on one server: the rules that were broken, and all that happened."""

    server: str
    scenario: str
    title: str
    findings: tuple[str, ...] = ()
    timeline: tuple[Line, ...] = ()
    unsupported: bool = False
    unclear: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """conforms, violates, hangs, unsupported or unclear."""
        if self.unclear:
            return "unclear"
        if self.unsupported:
            return "unsupported"
        if any(id in HANGS for id in self.findings):
            return "hangs"
        return "violates" if self.findings else "conforms"

    def without(self, ignored: Iterable[str]) -> Result:
        """Return the result with some rules suppressed."""
        hidden = frozenset(ignored)
        kept = tuple(id for id in self.findings if id not in hidden)
        return replace(self, findings=kept)


@dataclass(frozen=True, kw_only=True)
class ServerRun:
    """One server: its results, or why there are none. `interrupted`: the user wanted no more."""

    name: str
    version: str
    results: tuple[Result, ...] = ()
    skipped: str = ""
    failed: str = ""
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """What it is called beside others."""
        return label(self.name, self.version)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All servers; `target` is empty where the servers themselves were judged."""

    target: str
    servers: tuple[ServerRun, ...]
    ignored: frozenset[str] = field(default_factory=frozenset)

    @property
    def results(self) -> list[Result]:
        """All results of all servers."""
        return [result for server in self.servers for result in server.results]

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it before all was done."""
        return any(server.interrupted for server in self.servers)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 could not run, 130 interrupted, as shells have it."""
        if self.interrupted:
            return 130
        ran = [server for server in self.servers if server.results]
        if not ran or any(server.failed for server in self.servers):
            return 2
        if any(result.unclear for result in self.results):
            return 2
        return int(any(result.findings for result in self.results))


def is_finding(id: str) -> bool:
    """Tell if a rule counts: what is only worth a note does not."""
    return rule(id).severity is not Severity.INFO
