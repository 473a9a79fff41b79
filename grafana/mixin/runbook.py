"""The runbook: one entry an alert, in Markdown, from the data beside each alert."""

from __future__ import annotations

from collections.abc import Iterator

from .alert import Alert, Condition

_HEAD = """\
# Runbook

What to do when an alert of `grafana/alerts/` fires. Each entry says what it means, whom it hurts,
the first three commands to type on the host in question, the usual causes and the fix. The
sidecar is expected on 127.0.0.1:10464; put the name of your service's unit in place of
`YOUR-SERVICE`.

`ws-lifecycle-metrics` looks at one service in one directory, as one user: elsewhere it finds
nothing, and its `no open connections` is no all-clear. So type its commands as the sidecar's user
and with the sidecar's variables, which stand in its unit (`User=`, `Environment=`), or in its
container, where they are set. With the units of `examples/systemd` and as root, begin with:

```sh
runuser -u chat -- bash
export WS_LIFECYCLE_SERVICE=chat WS_LIFECYCLE_DIRECTORY=/run/chat/segments
export PATH="/srv/chat/.venv/bin:$PATH"
```

This file is generated from `grafana/mixin/alerts/`: change it there, then `make grafana`.
"""


def render_runbook(alerts: tuple[Alert, ...]) -> str:
    """Return the runbook of all alerts."""
    parts = [_HEAD, *_contents(alerts)]
    for alert in alerts:
        parts += ["", *_entry(alert)]
    return "\n".join(parts) + "\n"


def _contents(alerts: tuple[Alert, ...]) -> Iterator[str]:
    yield "| alert | severity | it says |"
    yield "| --- | --- | --- |"
    for alert in alerts:
        severities = ", ".join(dict.fromkeys(c.severity for c in alert.conditions))
        link = f"[{alert.full_name}](#{alert.full_name.lower()})"
        yield f"| {link} | {severities} | {alert.summary} |"


def _entry(alert: Alert) -> Iterator[str]:
    book = alert.runbook
    yield f"## {alert.full_name}"
    yield ""
    yield alert.summary + " " + " ".join(map(_when, alert.conditions))
    yield f"\n**Meaning.** {book.meaning}"
    yield f"\n**Impact.** {book.impact}"
    yield "\n**Type first**\n"
    yield "```sh"
    yield from book.commands
    yield "```"
    yield "\n**Causes**\n"
    yield from (f"- {cause}" for cause in book.causes)
    yield "\n**Fix**\n"
    yield from (f"{number}. {step}" for number, step in enumerate(book.fix, 1))
    for condition in alert.conditions:
        yield f"\n```promql\n{condition.expr}\n```"


def _when(condition: Condition) -> str:
    lasting = f"after {condition.wait}" if condition.wait else "at once"
    return f"Fires {lasting} as `{condition.severity}`."
