"""What the metrics say about a service, as numbers that a test can compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from ws_lifecycle_metrics import Config
from ws_lifecycle_metrics.store.snapshot import Source
from ws_lifecycle_metrics.telemetry.prometheus import render

if TYPE_CHECKING:
    from pathlib import Path

    Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(directory: Path, service: str = "test") -> Samples:
    """Read the segments of `service` in `directory`, keyed by name and labels.

    By way of the text that Prometheus would get, so that the exposition is part of the test.
    """
    text, _content_type = render(Source(Config(service=service, directory=str(directory))).take)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples called `name` that have these labels; `KeyError` if none has."""
    found = [
        value
        for (sample, pairs), value in samples.items()
        if sample == name and labels.items() <= set(pairs)
    ]
    if not found:
        raise KeyError(f"{name}{labels}: no such series")
    return sum(found)


def values_of(samples: Samples, name: str, label: str) -> set[str]:
    """The values that `label` takes in the samples called `name`."""
    return {dict(pairs)[label] for sample, pairs in samples if sample == name}
