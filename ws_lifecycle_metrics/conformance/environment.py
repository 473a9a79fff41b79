"""Variables of the environment that seem to set an option and set nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches

from ..config import PREFIX, Config, ExporterConfig, environment_name


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with our prefix that set nothing, each with the nearest that does."""
    options = [item for cls in (Config, ExporterConfig) for item in fields(cls)]
    known = [item.name for item in options if "parse" in item.metadata]
    found = {name: name.removeprefix(PREFIX).lower() for name in sorted(environment)}
    return {
        name: "".join(map(environment_name, get_close_matches(option, known, n=1)))
        for name, option in found.items()
        if name.startswith(PREFIX) and name not in map(environment_name, known)
    }
