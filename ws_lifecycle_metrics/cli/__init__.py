"""The command line: `ws-lifecycle-metrics`. One verb a file; heavy imports are in the verbs.

Exit codes: 0 fine, 1 findings, 2 wrong usage or could not run,
130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys

import click

from .check import check
from .connections import connections
from .doctor import doctor
from .rules import rules
from .serve import serve

NAME = "ws-lifecycle-metrics"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a write to the output can fail of; a closed pipe is click's to handle."""


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ..store.snapshot import package_version

        click.echo(f"{NAME} {package_version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Know the state of every ASGI WebSocket, and who broke the protocol."""


cli.add_command(serve)
cli.add_command(connections)
cli.add_command(rules)
cli.add_command(check)
cli.add_command(doctor)


def main() -> None:
    """Run the command line and exit."""
    # In a locale such as Latin-1 a report may have what the output's encoding has not.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name=NAME)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        # What is still in the buffer would fail again as the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
        sys.exit(2)
