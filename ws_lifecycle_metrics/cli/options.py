"""Command-line flags from the fields of a configuration, so that each option is written once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from typing import Any, TypeVar

import click

from ..config import ConfigError, environment_name

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


class Refused(click.ClickException):
    """What a user asked for cannot be done: one line on stderr, exit code 2."""

    exit_code = 2


def unknown(what: str, name: str, known: Iterable[str], otherwise: str) -> Refused:
    """Return the refusal of a name: with the nearest known ones, or what else helps."""
    from difflib import get_close_matches

    from ..labels import safe_label

    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    near += [one for one in known if name in one and one not in near][:3]
    hint = f"did you mean {', '.join(near)}?" if near else otherwise
    return Refused(f"no {what} is called '{safe_label(name)}'; {hint}")


def config_options(cls: type[Any], *names: str, **helps: str) -> Callable[[Command], Command]:
    """Add a flag for each named field of a configuration, in order; no names: for all.

    `helps` are by name what a command has to say of a flag in place of the field's own help. The
    command gets the texts that were given, for `configured`.
    """

    def decorate(command: Command) -> Command:
        for item in reversed(fields(cls)):
            if item.name in names or not names:
                command = _flag(item, helps.get(item.name, item.metadata["help"]))(command)
        return command

    return decorate


def _flag(item: Field[Any], meaning: str) -> Callable[[Command], Command]:
    default = item.metadata["default"]
    if default is False:
        note = f"{meaning}  [{environment_name(item.name)}]"
        return click.option(
            f"--{item.name.replace('_', '-')}", item.name, flag_value="1", default=None, help=note
        )
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    notes = f"default: {text}; " if text else ""
    return click.option(
        _name(item),
        item.name,
        metavar="TEXT"
        if isinstance(default, str)
        else "LIST"
        if isinstance(default, tuple)
        else "N",
        help=f"{meaning}  [{notes}{environment_name(item.name)}]",
    )


def _name(item: Field[Any]) -> str:
    return f"--{item.name.replace('_', '-')}"


def configured(cls: type[T], given: dict[str, str | None]) -> T:
    """Make a configuration of the flags that were given; raises `Refused`, naming the flag."""
    parsers = {item.name: item.metadata.get("parse") for item in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    options: dict[str, object] = {}
    for name, text in given.items():
        if text is None:
            continue
        try:
            options[name] = parsers[name](text)  # type: ignore[misc]  # flags exist for these alone
        except ConfigError as error:
            raise Refused(f"--{name.replace('_', '-')}: {error}") from error
    try:
        return cls(**options)
    except ConfigError as error:
        raise Refused(str(error)) from error
