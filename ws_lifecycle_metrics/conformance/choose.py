"""Which servers to run: from what the user named, or all that are installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from .result import ServerRun
from .run import Chosen
from .servers import BY_NAME, FAMILIES, KINDS, ServerKind, probe_version
from .venvs import InstallError, environment

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]*")


class UnknownServer(ValueError):  # noqa: N818  # what the user named, not an error of ours
    """No server has that name, or the version is none."""


def choose(
    names: Sequence[str], say: Callable[[str], object] = lambda _: None
) -> tuple[list[Chosen], list[ServerRun]]:
    """Return the servers to run, and those that cannot be, each with its reason.

    Raises `UnknownServer` for a name that stands for none. `say` is told before an install.
    """
    wanted = [pair for name in names for pair in _parse(name)]
    wanted = wanted or [(kind, "") for kind in KINDS]
    chosen, skipped = list[Chosen](), list[ServerRun]()
    for kind, version in dict.fromkeys(wanted):
        try:
            chosen.append(_pinned(kind, version, say) if version else _installed(kind))
        except InstallError as error:
            skipped.append(ServerRun(name=kind.name, version=version, skipped=str(error)))
    return chosen, skipped


def _parse(name: str) -> list[tuple[ServerKind, str]]:
    server, equals, version = name.strip().partition("==")
    kinds = FAMILIES.get(server) or ((BY_NAME[server],) if server in BY_NAME else ())
    if not kinds:
        known = [*FAMILIES, *BY_NAME]
        near = get_close_matches(server, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UnknownServer(f"no server is called {server!r}; {hint}")
    if equals and not _VERSION.fullmatch(version):
        raise UnknownServer(f"{name!r}: no version stands after '=='")
    return [(kind, version) for kind in kinds]


def _installed(kind: ServerKind) -> Chosen:
    missing = kind.missing()
    if missing:
        raise InstallError(missing)
    return Chosen(kind=kind, version=kind.installed_version())


def _pinned(kind: ServerKind, version: str, say: Callable[[str], object]) -> Chosen:
    say(f"preparing {kind.name} {version}")
    rest = kind.packages[1:]
    python = environment([f"{kind.distribution}=={version}", *rest])
    return Chosen(kind=kind, version=probe_version(kind, python), python=python)
