"""The catalogue keeps the rules that Prometheus and the segments need."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from ws_lifecycle_metrics import catalog
from ws_lifecycle_metrics.catalog import METRICS, Block, Kind, Metric, code_label
from ws_lifecycle_metrics.protocol import RULES
from ws_lifecycle_metrics.store import layout as at
from ws_lifecycle_metrics.store.writer import FIRST_EXTENT

each_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
BLOCKS = {
    Block.WORKER: (at.WORKER_BLOCK, at.WORKER_BLOCK_WORDS),
    Block.ROUTE: (at.ROUTE_BLOCK, at.ROUTE_BLOCK_WORDS),
    Block.OPERATION: (at.OPERATION_BLOCK, at.OPERATION_BLOCK_WORDS),
}


@each_metric
def test_its_name_is_valid_for_prometheus(metric):
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.prometheus)
    assert metric.prometheus.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not re.search(r"_(count|sum|bucket|created|info)$", metric.prometheus) or (
        metric is catalog.BUILD_INFO
    )


@each_metric
def test_its_name_says_its_unit(metric):
    suffix = {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
    assert metric.prometheus.removesuffix("_total").endswith(suffix)
    assert not re.search(r"milli|micro|_ms\b|minutes", metric.prometheus)


@each_metric
def test_its_labels_are_valid_and_not_taken_by_prometheus(metric):
    assert len(set(metric.labels)) == len(metric.labels)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", label)
        assert label not in {"type", "stage", "service", "le", "quantile", "job", "instance"}
        assert not {"path", "pid", "id", "query", "url", "host"} & {label}


@each_metric
def test_its_series_fit_its_labels(metric):
    assert len(set(metric.series)) == len(metric.series)
    (length,) = {len(labels) for labels in metric.series}
    assert length <= len(metric.labels)
    for labels in metric.series:
        assert all(isinstance(text, str) for text in labels)


@each_metric
def test_what_stands_at_0_is_among_its_series(metric):
    assert set(metric.zeros) <= set(metric.series)
    assert len(set(metric.zeros)) == len(metric.zeros)
    if metric not in (catalog.CLOSES, catalog.PROTOCOL_VIOLATIONS, catalog.STUCK_DETECTIONS):
        assert metric.zeros == metric.series


@each_metric
def test_a_metric_of_one_type_of_operation_belongs_to_operations(metric):
    assert metric.operation_type in ("", *catalog.OPERATION_TYPES)
    of_operations = metric.labels[:1] == ("graphql_operation_name",)
    assert bool(metric.operation_type) == (
        of_operations and "graphql_operation_type" not in metric.labels
    )


@each_metric
def test_its_help_is_a_sentence(metric):
    assert re.fullmatch(r"[A-Z0-9].*\.", metric.help)
    assert "\n" not in metric.help


@each_metric
def test_a_histogram_has_ascending_bounds_and_nothing_else_has_any(metric):
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert all(low < high for low, high in pairwise(metric.buckets))
    assert all(bound > 0 for bound in metric.buckets)


@each_metric
def test_what_is_stored_has_room_of_its_own(metric):
    holders = [block for block, (stored, _) in BLOCKS.items() if metric.name in stored]
    assert holders == ([metric.block] if metric.block else [])


@pytest.mark.parametrize("block", BLOCKS)
def test_no_word_of_a_block_has_two_meanings(block):
    stored, size = BLOCKS[block]
    words = [
        word
        for found in stored.values()
        for first in found.offsets.values()
        for word in range(first, first + found.size)
    ]
    words += [
        word
        for found in stored.values()
        for first in found.exemplars.values()
        for word in range(first, first + at.EXEMPLAR_WORDS * (len(found.metric.buckets) + 1))
    ]
    assert sorted(words) == list(range(size))


def test_a_bucket_counts_what_is_at_most_its_bound():
    words = memoryview(bytearray(at.ROUTE_BLOCK_WORDS * 8)).cast("Q")
    histogram = at.ROUTE_BLOCK[catalog.HANDSHAKE_DURATION.name].histogram()
    for ns in (0, 5_000_000, 5_000_001, 10**10, 10**10 + 1):
        histogram.observe(words, ns)
    counts = words[histogram.at : histogram.sum_at].tolist()
    assert counts == [2, 1, 0, 0, 0, 0, 1, 1]
    assert words[histogram.sum_at] == 0 + 5_000_000 + 5_000_001 + 2 * 10**10 + 1


def test_what_a_worker_starts_with_fits_in_the_first_extent():
    blocks = sum(size + 2 * 8 for _, size in BLOCKS.values())
    assert (at.HEADER_WORDS + blocks + 2 * at.RECORD_WORDS) * at.WORD <= FIRST_EXTENT


def test_no_name_stands_twice():
    assert len({metric.prometheus for metric in METRICS.values()}) == len(METRICS)
    defined = [value for value in vars(catalog).values() if isinstance(value, Metric)]
    assert len(defined) == len(METRICS)


def test_every_rule_has_its_series():
    assert catalog.PROTOCOL_VIOLATIONS.series == tuple(
        (str(rule.party), rule.id) for rule in RULES.values()
    )


def test_what_a_server_must_never_do_stands_at_0():
    assert {rule for _, rule in catalog.PROTOCOL_VIOLATIONS.zeros} == {
        rule.id for rule in RULES.values() if (rule.party, rule.severity) == ("server", "error")
    }


@pytest.mark.parametrize(
    ("code", "label"),
    [
        *((1000, "1000"), (1005, "1005"), (1006, "1006"), (4400, "4400"), (4500, "4500")),
        *((3000, "3xxx"), (3999, "3xxx"), (4000, "4xxx"), (4999, "4xxx"), (None, "other")),
        *((1004, "other"), (2999, "other"), (5000, "other"), (0, "other"), (-1, "other")),
        *((10**30, "other"), (999, "other")),
    ],
)
def test_any_close_code_has_one_of_few_labels(code, label):
    assert code_label(code) == label
    assert label in catalog.CODES
