"""`ws-lifecycle-metrics check`: a full protocol test on real servers, before production."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from .options import Refused, unknown

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from ..conformance.application import Approach
    from ..conformance.result import Report, ServerRun
    from ..conformance.run import Chosen, Progress

    Play = Callable[[list[Chosen]], list[ServerRun]]

FORMATS = ("text", "json", "junit", "sarif", "github")
FOR_TARGET = {
    "factory": "--factory",
    "path": "--path",
    "subprotocol": "--subprotocol",
    "query": "--query",
    "headers": "--header",
}
"""Flags that say what an application is and how to reach it, by their parameters."""


@click.command()
@click.argument("target", required=False)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME[==VERSION]",
    help="Server to run, again for more; default: all that are installed. With a version, in an "
    "environment of its own that pip fills once.",
)
@click.option("--factory", is_flag=True, help="TARGET makes the application when it is called.")
@click.option("--path", default="/", show_default=True, help="Path of the application's WebSocket.")
@click.option("--subprotocol", default="", help="Subprotocol to offer; two of them are GraphQL's.")
@click.option("--query", default="", help="GraphQL operation to run, such as a subscription.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Header to send.")
@click.option("--scenario", "only", multiple=True, metavar="ID", help="Play this scenario only.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Suppress a rule.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
    help="Form of the report.",
)  # fmt: skip
@click.option("--output", default="-", show_default=True, help="File for the report; -: stdout.")
def check(
    target: str | None, factory: bool, form: str, output: str, **options: tuple[str, ...] | str
) -> None:
    """Try an application, or the servers themselves.

    With TARGET, a module:app, a scripted client tries that application on each server. Without
    it, a reference application plays every scenario, and the servers are judged. Exit code 0:
    clean, 1: findings, 2: could not run, 130: interrupted; the report has what was done by then.
    """
    from ..conformance.formats import FORMATS as WRITERS

    if not hasattr(os, "killpg"):  # Windows: its processes could not be ended with their children
        raise Refused("check needs a system with process groups, such as Linux or macOS")
    if not target:
        _refuse_flags_for_target()
    elif factory:
        target = f"{target.removesuffix('()')}()"
    _refuse_unwritable(output)
    try:
        report = _run(target or "", options)
    except KeyboardInterrupt:
        click.echo("interrupted, without a report", err=True)
        sys.exit(130)
    _write(WRITERS[form](report), output)
    sys.exit(report.exit_code)


def _refuse_flags_for_target() -> None:
    source, typed = click.get_current_context().get_parameter_source, ParameterSource.COMMANDLINE
    if given := [flag for name, flag in FOR_TARGET.items() if source(name) is typed]:
        raise Refused(f"without a TARGET, {', '.join(given)} would do nothing; name a module:app")


def _run(target: str, options: dict[str, tuple[str, ...] | str]) -> Report:
    from ..conformance.choose import UnknownServer, choose
    from ..conformance.result import Report

    ignored = _known_rules(tuple(options["ignore"]))
    # All that may be mistyped is looked at before pip fills an environment.
    play = _application(target, options) if target else _servers(options)
    try:
        chosen, skipped = choose(tuple(options["servers"]), lambda what: click.echo(what, err=True))
    except UnknownServer as error:
        raise Refused(str(error)) from error
    if not chosen:
        raise Refused(f"no server can be run ({_reasons(skipped)})")
    runs = [_without(run, ignored) for run in play(chosen)]
    return Report(target=target, servers=(*runs, *skipped), ignored=ignored)


def _reasons(skipped: list[ServerRun]) -> str:
    """Return why servers are skipped, each reason once."""
    names: dict[str, list[str]] = {}
    for server in skipped:
        names.setdefault(server.skipped, []).append(server.name)
    return "; ".join(f"{', '.join(those)}: {reason}" for reason, those in names.items())


def _without(run: ServerRun, ignored: frozenset[str]) -> ServerRun:
    from dataclasses import replace

    return replace(run, results=tuple(result.without(ignored) for result in run.results))


def _servers(options: dict[str, tuple[str, ...] | str]) -> Play:
    from ..conformance.check import run_servers
    from ..conformance.scenarios import SCENARIOS

    wanted = _known_ids(tuple(options["only"]), list(SCENARIOS))
    scenarios = [scenario for scenario in SCENARIOS.values() if scenario.id in wanted]

    def play(chosen: list[Chosen]) -> list[ServerRun]:
        with _bar(chosen, len(scenarios)) as progress:
            return run_servers(chosen, scenarios, progress, _say_interrupted)

    return play


def _application(target: str, options: dict[str, tuple[str, ...] | str]) -> Play:
    from ..conformance.application import CannotRun
    from ..conformance.check import try_application
    from ..conformance.trials import GRAPHQL, trials_for

    approach = _approach(options)
    if options["query"] and approach.subprotocol not in GRAPHQL:
        raise Refused(f"--query needs a --subprotocol of GraphQL's: {' or '.join(GRAPHQL)}")
    trials = trials_for(approach.subprotocol, str(options["query"]))
    wanted = _known_ids(tuple(options["only"]), [trial.id for trial in trials])
    trials = tuple(trial for trial in trials if trial.id in wanted)

    def play(chosen: list[Chosen]) -> list[ServerRun]:
        try:
            with _bar(chosen, len(trials)) as progress:
                return try_application(chosen, target, trials, approach, progress, _say_interrupted)
        except CannotRun as error:
            raise Refused(str(error)) from error

    return play


def _approach(options: dict[str, tuple[str, ...] | str]) -> Approach:
    from ..conformance.application import Approach

    path, subprotocol = str(options["path"]), str(options["subprotocol"])
    if not path.startswith("/"):
        raise Refused(f"--path {path!a}: a path begins with '/'")
    if not _fits_in_a_line(path):
        raise Refused(f"--path {path!a}: percent-encode what is not ASCII, and blanks")
    if not _fits_in_a_line(subprotocol):
        raise Refused(f"--subprotocol {subprotocol!a}: a subprotocol is ASCII without blanks")
    return Approach(
        path=path,
        subprotocol=subprotocol,
        headers=tuple(_header(text) for text in options["headers"]),
    )


def _fits_in_a_line(text: str) -> bool:
    """Tell if a text can stand in the request's first line, or as a header's word."""
    return text.isascii() and text.isprintable() and " " not in text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable() or not text.isascii():
        raise Refused(f"--header {text!a}: accepted is 'Name: value'")
    return name.strip(), value.strip()


def _known_ids(wanted: tuple[str, ...], known: list[str]) -> frozenset[str]:
    for id in wanted:
        if id not in known:
            raise unknown("scenario", id, known, f"known are {', '.join(known)}")
    return frozenset(wanted or known)


def _known_rules(ids: tuple[str, ...]) -> frozenset[str]:
    from ..conformance.rules import WIRE_RULES
    from ..protocol import RULES

    for id in ids:
        if id not in RULES and id not in WIRE_RULES:
            listed = "'ws-lifecycle-metrics rules' lists those of the protocol"
            raise unknown("rule", id, [*RULES, *WIRE_RULES], listed)
    return frozenset(ids)


@contextmanager
def _bar(chosen: list[Chosen], scenarios: int) -> Iterator[Progress]:
    """Show progress on a terminal; no signal leaves a process."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        _Signals(console).taken(),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        tasks = {one: bar.add_task(one.label, total=scenarios) for one in chosen}

        def advance(server: Chosen, _scenario: str) -> None:
            bar.advance(tasks[server])

        yield advance


class _Signals:
    """SIGTERM ends all as Ctrl-C does; a second one of them, and a lost terminal, at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals for a `with` block, but none that this program was to ignore."""
        taken = {signal.SIGTERM}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            taken.add(signal.SIGINT)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            taken.add(signal.SIGHUP)
        before = {number: signal.signal(number, self._take) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        from ..conformance.leftovers import end_all

        if not self._told and number != signal.SIGHUP:
            self._told = True
            raise KeyboardInterrupt
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        end_all()
        with suppress(OSError):  # the terminal may be gone
            self._console.show_cursor()
        os._exit(130)  # other threads wait for what is dead by now


def _say_interrupted() -> None:
    click.echo(
        "interrupted: each server ends its scenario and is stopped; again: all at once", err=True
    )


def _refuse_unwritable(output: str) -> None:
    """See before all the work that the report can be written; what is there stays as it is."""
    there = os.path.lexists(output)
    is_pipe = os.path.exists(output) and not os.path.isfile(output) and not os.path.isdir(output)
    if output == "-" or is_pipe:  # its reader would take the first close for the end
        return
    try:
        Path(output).open("ab").close()
        if not there:
            Path(output).unlink()
    except OSError as error:
        raise _unwritable(output, error) from error


def _unwritable(output: str, error: OSError) -> Refused:
    return Refused(f"cannot write {output}: {error.strerror}")


def _write(text: str, output: str) -> None:
    if output == "-":
        click.echo(text)
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8")  # as XML and JSON are read
    except OSError as error:
        raise _unwritable(output, error) from error
