"""Protocol: which side broke which rule, where, and what does the rule mean?"""

from __future__ import annotations

from ws_lifecycle_metrics.protocol.rules import RULES, Party, Severity

from ..base import BLUE, ORANGE, RED, WARN_ABOVE_ZERO, Query
from ..board import Board, Row
from ..panels import lines, stat
from ..promql import INSTANCE, ROUTE, grown, increase, metrics, rate, sum_by
from ..tables import table, text
from .overview import STUCK_COLOURS

_SPAN = "$__range"


def _party(party: Party) -> str:
    return f'{ROUTE}, party="{party}"'


def _who() -> Row:
    server, app = (
        sum_by("", grown(metrics.PROTOCOL_VIOLATIONS, _party(party), _SPAN, target=INSTANCE))
        for party in (Party.SERVER, Party.APP)
    )
    errors = sum_by("", increase(metrics.APP_ERRORS, ROUTE, _SPAN))
    shielded = sum_by("", increase(metrics.SHIELDED_SENDS, ROUTE, _SPAN))
    return Row(
        "Who breaks the protocol?",
        (
            stat(
                "By the server",
                "Violations by the ASGI server in the time shown; many are known"
                " faults of a version.",
                Query(server),
                unit="none",
                decimals=0,
                size=(6, 5),
                alert="ServerProtocolViolation",
            ),
            stat(
                "By the application",
                "Violations by the application or its framework in the time shown.",
                Query(app),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=(6, 5),
                alert="AppProtocolViolation",
            ),
            stat(
                "Exceptions",
                "Exceptions that left the application, in the time shown.",
                Query(errors),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=(6, 5),
                alert="AppProtocolViolation",
            ),
            stat(
                "Sends kept back",
                "Sends after the close that the policy 'shield' kept from the"
                " server, in the time shown.",
                Query(shielded),
                steps=((None, BLUE),),
                unit="none",
                decimals=0,
                size=(6, 5),
            ),
        ),
    )


def _which() -> Row:
    in_all = grown(metrics.PROTOCOL_VIOLATIONS, ROUTE, _SPAN, target=INSTANCE)
    worst = sum_by("party, rule, http_route", in_all)
    now = grown(metrics.PROTOCOL_VIOLATIONS, ROUTE, target=INSTANCE)
    return Row(
        "Which rules, and where?",
        (
            table(
                "Broken rules",
                "In the time shown, most often first. The panel below says what each rule means.",
                Query(f"topk(50, {worst} > 0)"),
                columns={"party": "Party", "rule": "Rule", "http_route": "Route", "Value": "Times"},
                narrow=("Party",),
                steps=((None, ORANGE), (100, RED)),
                size=(12, 9),
            ),
            lines(
                "Violations over time",
                "How often in each interval, only rules that were broken.",
                Query(sum_by("rule", now) + " > 0", "{{rule}}"),
                unit="none",
                size=(12, 9),
                alert="ServerProtocolViolation",
            ),
        ),
    )


def _before() -> Row:
    detections = sum_by("reason", increase(metrics.STUCK_DETECTIONS, ROUTE))
    return Row(
        "What came of it?",
        (
            lines(
                "Connections found stuck",
                "Each time that a worker found a connection stuck: a violation often comes before.",
                Query(detections, "{{reason}}"),
                stacked=True,
                alert="ConnectionsNotReleased",
                colours=STUCK_COLOURS,
            ),
            lines(
                "Closes by the application and by the server",
                "By code: 1006 and 1011 after a violation are its consequence.",
                Query(
                    sum_by(
                        "initiator, code", rate(metrics.CLOSES, f'{ROUTE}, initiator=~"app|server"')
                    )
                    + " > 0",
                    "{{initiator}} {{code}}",
                ),
                unit="ops",
            ),
        ),
    )


def _meaning(party: Party) -> str:
    order = list(Severity)
    rules = sorted(
        (rule for rule in RULES.values() if rule.party is party),
        key=lambda rule: order.index(rule.severity),
    )
    head = "| rule | severity | meaning | what to do |\n| --- | --- | --- | --- |\n"
    return head + "".join(
        f"| `{rule.id}` | {rule.severity} | {rule.meaning} | {rule.hint} |\n" for rule in rules
    )


def _rules() -> Row:
    what = "Every rule, what it means and what to do; errors first."
    return Row(
        "What does each rule mean?",
        (
            text("Rules for the server", what, _meaning(Party.SERVER), size=(24, 17)),
            text("Rules for the application", what, _meaning(Party.APP), size=(24, 26)),
        ),
    )


BOARD = Board(
    uid="websocket-protocol",
    title="WebSocket / Protocol",
    description="Which side broke which rule of the ASGI protocol, where, and what it means.",
    rows=(_who(), _which(), _before(), _rules()),
)
