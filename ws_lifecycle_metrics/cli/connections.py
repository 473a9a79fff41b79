"""`ws-lifecycle-metrics connections`: the open connections of this moment, worst first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..config import Config
from ..labels import plural, safe_label
from .options import Refused, config_options, configured

if TYPE_CHECKING:
    from rich.table import Table

    from ..store.connections import Connection, Ranked
    from ..store.snapshot import Snapshot
    from ..watchdog.sidefile import Stack
    from ..watchdog.workers import Health

STATE_STYLES = {
    "orphaned": "bold magenta",
    "closing": "bold red",
    "connecting": "yellow",
    "open": "green",
}


@click.command()
@config_options(Config, "service", "directory")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--limit", type=click.IntRange(0), default=100, show_default=True, help="Print at most N."
)
def connections(as_json: bool, limit: int, **given: str | None) -> None:
    """List the open connections, worst first."""
    config = configured(Config, given)
    snapshot = _take(config)
    found = snapshot.ranked()
    if as_json:
        from ..exporter.overview import connections_object

        click.echo(json.dumps(connections_object(config.service, snapshot, found, limit), indent=2))
    else:
        _print_all(config.service, snapshot, found, limit)
    if not snapshot.workers:
        from ..store.services import never_used

        # Beside the output, which may be read by a program.
        if unused := never_used(config):
            click.echo(unused.text, err=True)


def _take(config: Config) -> Snapshot:
    from ..store.directory import Directory, DirectoryError, service_path
    from ..store.snapshot import Source

    try:
        directory = Directory.existing(service_path(config.directory, config.service))
    except DirectoryError as error:
        raise Refused(f"the directory of segments cannot be used: {error}") from error
    if directory is not None:
        directory.close()
    return Source(config).take()


def _print_all(service: str, snapshot: Snapshot, found: Ranked, limit: int) -> None:
    from ..watchdog.workers import serving
    from .screen import show

    stuck = snapshot.stuck_workers()
    workers = plural(len(serving(snapshot.health)), "worker")
    workers += f" ({len(stuck)} stuck)" if stuck else ""
    shown = found.page(limit=limit)
    if found:
        states = Counter(connection.state for connection in found)
        in_states = ", ".join(f"{states[state]} {state}" for state in STATE_STYLES if states[state])
        violations = sum(connection.violations for connection in found)
        click.echo(
            f"{service}: {plural(len(found), 'connection')} ({in_states}), {workers}, "
            f"{plural(violations, 'violation')} among them"
        )
        if limit:
            show(lambda width: _table(shown, width))
    else:
        click.echo(f"{service}: no open connections, {workers}")
    for line in (*_stuck_workers(stuck), *_stuck_lines(shown)):
        click.echo(line)
    if len(found) > limit:
        click.echo(f"{len(found) - limit} more; --limit {len(found)} shows all")


def _stuck_workers(stuck: list[tuple[Health, Stack]]) -> Iterator[str]:
    """Say of each stuck worker why, and at which line its loop hangs."""
    from .human import duration

    for health, loop in stuck:
        why = health.detail
        if health.reason == "loop_blocked" and health.beat_age is not None:
            why = f"loop_blocked for {duration(health.beat_age)}"
        where = f", at {safe_label(loop.where)}" if loop.where else ""
        yield f"{health.name} is stuck: {why}{where}"


def _stuck_lines(found: list[Connection]) -> Iterator[str]:
    """Say of each stuck connection why, and at which line the application waits."""
    from .human import duration

    for c in found:
        if c.stuck:
            where = f", at {safe_label(c.where)}" if c.where else ""
            route = safe_label(c.route)
            yield f"stuck: {c.worker}/{c.id} {route}: {c.stuck}, {duration(c.in_state)}{where}"


def _table(found: list[Connection], width: int) -> Table:
    from rich.table import Table

    from .screen import WIDE, text

    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0))
    for wide_name, narrow_name, right in COLUMNS:
        table.add_column(
            wide_name if wide else narrow_name,
            justify="right" if right else "left",
            # The route alone gives way where the screen is narrow.
            no_wrap=wide_name != "route",
        )
    for connection in found:
        style = STATE_STYLES.get(connection.state, "")
        cells = _cells(connection, wide)
        table.add_row(*(text(c, style if i == 2 else "") for i, c in enumerate(cells)))
    return table


COLUMNS = (
    ("worker", "w", True),
    ("route", "route", False),
    ("state", "state", False),
    ("age", "age", True),
    ("silent for", "silent", True),
    ("waits for", "waits", False),
    ("received", "in", True),
    ("bytes", "bytes", True),
    ("sent", "out", True),
    ("bytes", "bytes", True),
    ("violations", "viol", True),
)


def _cells(connection: Connection, wide: bool) -> tuple[str, ...]:
    from .human import amount, duration, size

    in_bytes = size if wide else amount
    return (
        connection.worker,
        connection.route,
        _state(connection) if wide else connection.state,
        duration(connection.age),
        duration(connection.silent),
        connection.waits_for if wide else connection.waits_for.replace("application", "app"),
        amount(connection.received_messages),
        in_bytes(connection.received_bytes),
        amount(connection.sent_messages),
        in_bytes(connection.sent_bytes),
        amount(connection.violations),
    )


def _state(connection: Connection) -> str:
    """Return the state, with the close code where it has a name of its own."""
    named = " " in connection.close
    return f"{connection.state} {connection.close}" if named else connection.state
