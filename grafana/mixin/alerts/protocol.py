"""Alerts on breaches of the ASGI message rules, by the party at fault."""

from __future__ import annotations

from ws_lifecycle_metrics.protocol.rules import RULES, Party, Severity

from ..alert import Alert, Condition, Runbook
from ..config import CONFIG
from ..promql import grown, metrics, sum_by

_RULES = "ws-lifecycle-metrics rules"
_COUNTS = "curl -s http://127.0.0.1:10464/metrics | grep violations_total | grep -v ' 0.0$'"
_LOG = "journalctl --since -30min -u YOUR-SERVICE | grep -E 'app[.]|server[.]'"


def _condition(party: Party, severity: str) -> Condition:
    """Fire on errors alone: rules that only warn or inform stand on the dashboard."""
    lesser = sorted(
        rule.id
        for rule in RULES.values()
        if rule.party is party and rule.severity is not Severity.ERROR
    )
    matchers = f'party="{party}", rule!~"{"|".join(lesser)}"'
    found = grown(metrics.PROTOCOL_VIOLATIONS, matchers, "10m")
    return Condition(
        expr=sum_by(CONFIG.job("http_route", "rule"), found) + " > 0.5", severity=severity
    )


SERVER = Alert(
    name="ServerProtocolViolation",
    summary="The ASGI server broke the protocol.",
    description=(
        "The server broke the rule {{ $labels.rule }} about {{ $value | humanize }} times in 10"
        " minutes on {{ $labels.http_route }} ({{ $labels.job }})."
    ),
    conditions=(_condition(Party.SERVER, "warning"),),
    runbook=Runbook(
        meaning="The server delivered an event, or failed a call, against the ASGI specification."
        " It is not the application's fault: each rule names the party.",
        impact="What follows is undefined: lost closes, `ASGI flow error`, workers that hang. It is"
        " the usual forerunner of a stuck worker.",
        commands=(
            _RULES,
            _COUNTS,
            "pip list | grep -iE 'granian|uvicorn|gunicorn|hypercorn|daphne'",
        ),
        causes=(
            "A version of the server with a known fault; Granian before 2.3.2 delivers a second"
            " connect.",
            "An outer middleware that makes or drops events.",
        ),
        fix=(
            "Look the rule up: its hint says what is known. Update the server.",
            'Where no update helps, set `policy="shield"` so that it isn\'t provoked, or use'
            " another server.",
        ),
    ),
)

APP = Alert(
    name="AppProtocolViolation",
    summary="The application broke the protocol.",
    description=(
        "The application broke the rule {{ $labels.rule }} about {{ $value | humanize }} times in"
        " 10 minutes on {{ $labels.http_route }} ({{ $labels.job }})."
    ),
    conditions=(_condition(Party.APP, "info"),),
    runbook=Runbook(
        meaning="The application, or its framework, sent what the ASGI specification forbids at"
        " that point, or let an exception out.",
        impact="Servers differ: one ignores it, one raises, one hangs. The client often sees 1006"
        " or 1011.",
        commands=(_RULES, _COUNTS, _LOG),
        causes=(
            "A background task that sends after the close.",
            "A path through the handler that neither accepts nor rejects.",
            "An exception that nobody catches.",
        ),
        fix=(
            "Look the rule up: its hint says what to change. The log line has the route.",
            '`policy="strict"` raises at the offending line: use it in tests.',
        ),
    ),
)

ALERTS = (SERVER, APP)
