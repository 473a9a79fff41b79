"""What a user may want to change before generating: each setting once.

Thresholds that belong to the watchdog are options of `ws_lifecycle_metrics.Config`, not of this.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class MixinConfig:
    """Settings of the generators; `runbook_base` also from the environment, RUNBOOK_BASE."""

    prefix: str = "WebSocket"  # first word of each alert
    tag: str = "ws-lifecycle-metrics"
    runbook_base: str = "grafana/runbook.md"  # name the address under which you publish it
    by_instance: tuple[str, ...] = ("job", "instance")  # add "namespace" or "cluster" if you have
    by_job: tuple[str, ...] = ("job",)
    handshake_slo: float = 0.99
    handshake_minimum: int = 20  # in the long window, so that one alone spends no budget
    stuck_ratio: float = 0.05
    stuck_minimum: int = 5
    loop_delay_p99: float = 0.5  # seconds
    storm_factor: float = 5.0
    storm_minimum: float = 1.0  # handshakes a second, below which nothing is a storm

    def runbook(self, alert: str) -> str:
        """Return the address of an alert's runbook entry; headings become anchors in lower case."""
        return f"{self.runbook_base}#{alert.lower()}"

    def instance(self, *more: str) -> str:
        """Return the labels of a `by (…)` clause for one target, with `more`."""
        return ", ".join((*self.by_instance, *more))

    def job(self, *more: str) -> str:
        """Return the labels of a `by (…)` clause for one job, with `more`."""
        return ", ".join((*self.by_job, *more))


CONFIG = MixinConfig(runbook_base=os.environ.get("RUNBOOK_BASE", MixinConfig().runbook_base))
