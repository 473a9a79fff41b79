"""What an alert is: expression, severity, words and the runbook entry that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import CONFIG

SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runbook:
    """What the person who was woken reads; `commands` are the first three things to type."""

    meaning: str
    impact: str
    commands: tuple[str, str, str]
    causes: tuple[str, ...]
    fix: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """When an alert fires; one with several burn rates has several."""

    expr: str
    severity: str
    wait: str = ""  # `for`
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One alert; `name` is without the shared first word."""

    name: str
    summary: str
    description: str
    conditions: tuple[Condition, ...]
    runbook: Runbook

    @property
    def full_name(self) -> str:
        """The name as Prometheus and people see it."""
        return CONFIG.prefix + self.name

    def rules(self) -> list[dict[str, object]]:
        """Return the rules as Prometheus reads them."""
        return [self._rule(condition) for condition in self.conditions]

    def _rule(self, condition: Condition) -> dict[str, object]:
        if condition.severity not in SEVERITIES:
            raise ValueError(f"{self.name}: {condition.severity!r} is not one of {SEVERITIES}")
        rule: dict[str, object] = {"alert": self.full_name, "expr": condition.expr}
        if condition.wait:
            rule["for"] = condition.wait
        return rule | {
            "labels": {"severity": condition.severity, **condition.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": CONFIG.runbook(self.full_name),
            },
        }
