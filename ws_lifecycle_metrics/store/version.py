"""The version of this package: who reads and who pushes numbers says whose they are."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version


@functools.cache
def package_version() -> str:
    """Return the version of this package, or "unknown" where it is not installed."""
    try:
        return version("ws-lifecycle-metrics")
    except PackageNotFoundError:
        return "unknown"
