"""What the metrics say about GraphQL, without what is 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ws_lifecycle_metrics import Config, LifecycleMiddleware, catalog
from ws_lifecycle_metrics.store.snapshot import Connection, Histogram, Source

if TYPE_CHECKING:
    from pathlib import Path


class Books:
    """The numbers of one service in a directory of its own."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.config = Config(service="test", directory=str(directory), **options)

    def wrap(self, app: Any) -> Any:
        return LifecycleMiddleware(app, config=self.config)

    def series(self, metric: catalog.Metric) -> dict[tuple[str, ...], float]:
        """Return the series of a metric that are not 0; of a histogram how many it holds."""
        for family in Source(self.config).take().families():
            if family.metric is metric:
                return {
                    labels: number
                    for labels, value in family.series.items()
                    if (number := sum(value.counts) if isinstance(value, Histogram) else value)
                }
        raise KeyError(metric.name)

    def seconds(self, metric: catalog.Metric) -> float:
        """Return the sum of all that a histogram of durations holds."""
        families = Source(self.config).take().families()
        (family,) = [family for family in families if family.metric is metric]
        return sum(v.sum for v in family.series.values() if isinstance(v, Histogram))

    def number(self, metric: catalog.Metric) -> float:
        return sum(self.series(metric).values())

    def ends(self) -> dict[str, float]:
        """Return how subscriptions ended, by reason."""
        found: dict[str, float] = {}
        for (_name, reason), number in self.series(catalog.SUBSCRIPTION_ENDS).items():
            found[reason] = found.get(reason, 0) + number
        return found

    def connections(self) -> list[Connection]:
        return Source(self.config).take().connections()

    def at_rest(self) -> None:
        """Assert what must hold once everything has ended."""
        assert self.series(catalog.GRAPHQL_ACTIVE) == {}
        assert self.series(catalog.GRAPHQL_REQUESTS) == self.series(catalog.GRAPHQL_DURATION)
        assert self.number(catalog.SUBSCRIPTION_ORPHANS) == 0
        assert self.series(catalog.ACTIVE_CONNECTIONS) == {}
        assert self.connections() == []
        assert self.number(catalog.INTERNAL_ERRORS) == 0
