"""What the sidecar says of workers: as JSON, and as health checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..store.snapshot import Snapshot
from ..watchdog.sidefile import Stacks
from ..watchdog.workers import Health
from .client import Answer, refusal


def workers_object(
    service: str, snapshot: Snapshot, spied: Mapping[int, tuple[str, ...]]
) -> dict[str, Any]:
    """Return the workers for JSON, stuck ones first. Ages are in seconds."""
    health = [h for h in snapshot.health if not h.ended]
    health.sort(key=lambda h: (h.reason is None, h.replaced, h.worker))
    return {
        "service": service,
        "time": round(snapshot.wall, 3),
        "total": len(health),
        "workers": [_as_object(h, snapshot, spied.get(h.uuid, ())) for h in health],
    }


def _as_object(health: Health, snapshot: Snapshot, spied: tuple[str, ...]) -> dict[str, Any]:
    loop = snapshot.hangs_at(health)
    found = asdict(health)
    for name in ("uuid", "clock", "replaced", "here", "ended"):
        del found[name]
    return {
        **found,
        "beat_age": None if health.beat_age is None else round(health.beat_age, 3),
        "failing": health.failing,
        "where": loop.where,
        "stack": list(loop.lines),
        "faulthandler": list(snapshot.stacks.get(health.uuid, Stacks()).faults),
        "py_spy": list(spied),
    }


def service_health(health: Sequence[Health]) -> Answer:
    """Answer whether all workers serve: 200, or 503 and a line for each that does not."""
    failing = [h for h in health if h.failing]
    if not failing:
        return Answer(200, b"ok\n")
    lines = "\n".join(f"{h.name}: {h.reason}: {h.detail}" for h in failing)
    return refusal(503, lines)


def worker_health(health: Sequence[Health], worker: str) -> Answer:
    """Answer whether one worker serves; 404 if there is none of this number."""
    own = [h for h in health if h.worker == worker and not h.ended]
    return service_health(own) if own else refusal(404, "no such worker")
