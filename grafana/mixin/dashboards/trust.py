"""The rows of the overview that tell whether its numbers can be trusted."""

from __future__ import annotations

from ..base import BLUE, GREEN, ORANGE, RED, WARN_ABOVE_ZERO, Query
from ..board import Row
from ..panels import lines, stat
from ..promql import INSTANCE, ROUTE, increase, metrics, rate, select, sum_by
from ..tables import table

_SPAN = "$__range"


def books() -> Row:
    """Return whether all connections that were accepted are accounted for."""
    accepted = sum_by("", select(metrics.HANDSHAKES, f'{ROUTE}, result="accepted"'))
    closed = sum_by("", select(metrics.CLOSES, ROUTE))
    lost = sum_by("", select(metrics.LOST_CONNECTIONS, ROUTE))
    open_now = sum_by("", select(metrics.ACTIVE_CONNECTIONS, f'{ROUTE}, state=~"open|closing"'))
    losses = sum_by("http_route", increase(metrics.LOST_CONNECTIONS, ROUTE, _SPAN))
    return Row(
        "Do the books balance?",
        (
            stat(
                "Connections unaccounted for",
                "accepted - closed - lost - active. Anything but"
                " 0 that stays means that a number above cannot be trusted. Rejected connections"
                " that are still closing count as -1 each.",
                Query(f"{accepted} - {closed} - {lost} - {open_now}"),
                steps=((None, ORANGE), (0, GREEN), (1, ORANGE)),
                size=(6, 6),
            ),
            lines(
                "Accepted, ended and active",
                "The totals that must balance: accepted = ended + active.",
                Query(accepted, "accepted"),
                Query(f"{closed} + {lost}", "ended"),
                Query(open_now, "active"),
                size=(9, 6),
            ),
            table(
                "Lost with their worker",
                "Connections that had not ended when their worker died, in the time shown.",
                Query(f"{losses} > 0"),
                columns={"http_route": "Route", "Value": "Lost"},
                steps=((None, RED),),
                size=(9, 6),
                alert="WorkerDied",
            ),
        ),
    )


def itself() -> Row:
    """Return what the package says about itself."""

    def worst(metric: metrics.Metric) -> Query:
        return Query(f"max({select(metric, INSTANCE)})")

    errors = sum_by("", increase(metrics.INTERNAL_ERRORS, INSTANCE, _SPAN))
    overflow = sum_by("", increase(metrics.LABEL_OVERFLOW, INSTANCE, _SPAN))
    good = {"1": ("complete", GREEN), "0": ("failed", RED)}
    size = (4, 4)
    return Row(
        "Can these numbers be trusted?",
        (
            stat(
                "Collection",
                "Whether each sidecar could read all workers.",
                Query(f"min({select(metrics.COLLECTOR_SUCCESS, INSTANCE)})"),
                mappings=good,
                steps=((None, RED), (1, GREEN)),
                size=size,
                alert="ExporterDown",
            ),
            stat(
                "Storage degraded",
                "1: numbers of some workers are not shared.",
                worst(metrics.STORAGE_DEGRADED),
                size=size,
                alert="StorageDegraded",
            ),
            stat(
                "Switched off",
                "Workers whose middleware stopped observing after faults of its own.",
                worst(metrics.SWITCHED_OFF),
                size=size,
                alert="StorageDegraded",
            ),
            stat(
                "Faults of our own",
                "Kept from the application, in the time shown.",
                Query(errors),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=size,
            ),
            stat(
                "Labels folded",
                "Values counted under 'other', in the time shown.",
                Query(overflow),
                steps=WARN_ABOVE_ZERO,
                unit="none",
                decimals=0,
                size=size,
                alert="LabelOverflow",
            ),
            stat(
                "Files skipped",
                "Files in the directory of segments that could not be trusted.",
                worst(metrics.SKIPPED_SEGMENTS),
                steps=WARN_ABOVE_ZERO,
                size=size,
            ),
            lines(
                "Time to collect",
                "The slowest sidecar's time to read all workers.",
                Query(worst(metrics.COLLECT_DURATION).expr, "slowest"),
                unit="s",
                size=(8, 6),
            ),
            lines(
                "OpenTelemetry",
                "Spans that could not be made, and pushes of metrics by"
                " result. All 0 where OpenTelemetry is not used.",
                Query(sum_by("", rate(metrics.SPANS_DROPPED, INSTANCE)), "spans dropped"),
                Query(sum_by("result", rate(metrics.OTLP_PUSHES, INSTANCE)), "pushes {{result}}"),
                unit="ops",
                size=(8, 6),
            ),
            table(
                "Versions",
                "Which version of the package answers, on how many hosts.",
                Query(f"count by (version) ({select(metrics.BUILD_INFO, INSTANCE)})"),
                columns={"version": "Version", "Value": "Hosts"},
                steps=((None, BLUE),),
                size=(8, 6),
            ),
        ),
    )
