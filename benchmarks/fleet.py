"""What 1,000 hosts cost Prometheus: series, size of a scrape, time of the overview's queries.

    python benchmarks/fleet.py [--hosts 1000] [--minutes 5] [--write]

The series are those of the catalogue at 3 routes, 10 operations and 8 workers: like the sidecar,
each owner has all of its series from the start. promtool turns the samples of all hosts into
blocks, and a real Prometheus answers the queries of the overview over them.
Needs Debian's prometheus. `--write` puts the figures into docs/fleet.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ws_lifecycle_metrics.catalog import METRICS, Block, Kind, Metric  # noqa: E402  # a script is not on it

ROUTES = ("/graphql", "/chat/{room}", "other")
OPERATIONS = (*(f"Operation{number}" for number in range(9)), "other")
WORKERS = tuple(map(str, range(8)))
SUBPROTOCOLS = ("graphql-transport-ws",)
BAR = 800
PORT = 29592
STEP = 15
END = 1_767_268_800
_open = build_opener(ProxyHandler({})).open


def series_of(metric: Metric) -> Iterator[dict[str, str]]:
    """Yield the label sets of a metric on one host of the size above."""
    owners = {"http_route": ROUTES, "worker": WORKERS, "graphql_operation_name": OPERATIONS}
    owner = next((name for name in metric.labels if name in owners), None)
    for value in owners[owner] if owner else ("",):
        for rest in _rest(metric, owner):
            yield ({owner: value} if owner else {}) | rest


def _rest(metric: Metric, owner: str | None) -> Iterator[dict[str, str]]:
    names = [name for name in metric.labels if name != owner]
    for values in metric.series:
        # Of the package's version nothing is known in advance.
        pairs = dict(zip(names, values or ("0.1.0",) * len(names), strict=True))
        yield pairs
        if "subprotocol" in pairs:
            yield from (pairs | {"subprotocol": other} for other in SUBPROTOCOLS)


def lines_of(metric: Metric, labels: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the samples of one series, a histogram's buckets included."""
    if metric.kind is not Kind.HISTOGRAM:
        yield metric.prometheus, labels
        return
    for bound in (*metric.buckets, "+Inf"):
        yield metric.prometheus + "_bucket", {**labels, "le": str(bound)}
    yield metric.prometheus + "_sum", labels
    yield metric.prometheus + "_count", labels


def everything() -> list[tuple[Metric, str, dict[str, str]]]:
    """Every sample of one host."""
    return [
        (metric, name, found)
        for metric in METRICS.values()
        for labels in series_of(metric)
        for name, found in lines_of(metric, labels)
    ]


def labelled(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"


def scrape_text() -> str:
    """One host's answer to a scrape."""
    return "".join(f"{labelled(name, labels)} 12345\n" for _, name, labels in everything())


def needed() -> set[str]:
    """Names that the overview reads: only these are written for all hosts."""
    text = (ROOT / "grafana/dashboards/websocket-overview.json").read_text()
    return {name for _, name, _ in everything() if name in text}


def hour(hosts: int, minutes: int) -> Iterator[str]:
    """Yield all hosts' samples as OpenMetrics text."""
    wanted, by_name = needed(), {}
    for metric, name, labels in everything():
        if name in wanted:
            by_name.setdefault((metric.prometheus, metric.kind), []).append((name, labels))
    times = range(END - 60 * minutes, END + 1, STEP)
    for (family, kind), samples in by_name.items():
        yield f"# TYPE {family.removesuffix('_total')} {kind}\n"
        for host in range(hosts):
            where = {"job": "fleet", "instance": f"host-{host:04}:10464"}
            for name, labels in samples:
                series = labelled(name, where | labels)
                yield "".join(
                    f"{series} {(t - times[0]) // STEP if kind != 'gauge' else 1} {t}\n"
                    for t in times
                )
    yield "# EOF\n"


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run Prometheus over the blocks."""
    (folder / "prometheus.yml").write_text("{}\n")
    command = [
        *("prometheus", f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/tsdb", "--storage.tsdb.retention.time=100y"),
        *(f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=error"),
    ]
    process = subprocess.Popen(command)
    base = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(600):
            try:
                _open(f"{base}/-/ready", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=60)


def overview() -> list[tuple[str, bool, str]]:
    """Title, whether it is an instant query, and expression of each query of the overview."""
    board = json.loads((ROOT / "grafana/dashboards/websocket-overview.json").read_text())
    values = {"$__rate_interval": "60s", "$__range": "5m", "[1h]": "[5m]"}
    values |= {"$job": "fleet", "$instance": ".+", "$route": ".+"}
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"]
            for name, value in values.items():
                expr = expr.replace(name, value)
            found.append((panel["title"], bool(target.get("instant")), expr))
    return found


def ask(base: str, instant: bool, expr: str, minutes: int) -> float:
    """Return how long one query takes, in seconds."""
    if instant:
        address = f"{base}/api/v1/query?" + urlencode({"query": expr, "time": END})
    else:
        window = {"start": END - 60 * minutes, "end": END, "step": STEP}
        address = f"{base}/api/v1/query_range?" + urlencode({"query": expr, **window})
    began = time.perf_counter()
    with _open(address, timeout=300) as answer:
        answer.read()
    return time.perf_counter() - began


def measure(hosts: int, minutes: int) -> dict[str, float]:
    """Return the times of the overview's queries by title, the slowest of a panel."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        text = folder / "fleet.om"
        with text.open("w", encoding="utf-8") as out:
            out.writelines(hour(hosts, minutes))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, folder / "tsdb"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)
        text.unlink()
        with prometheus(folder) as base:
            times: dict[str, float] = {}
            for title, instant, expr in overview():
                took = ask(base, instant, expr, minutes)
                times[title] = max(took, times.get(title, 0.0))
    return times


def report(hosts: int, minutes: int, times: dict[str, float]) -> str:
    """Return the page."""
    text = scrape_text()
    counts = Counter(metric.prometheus for metric, _, _ in everything())
    total = sum(counts.values())
    size, packed = len(text.encode()), len(gzip.compress(text.encode()))
    blocks = Counter()
    for metric, _, _ in everything():
        blocks[_owner(metric)] += 1
    largest = "".join(f"| `{name}` | {count} |\n" for name, count in counts.most_common(10))
    slowest = "".join(
        f"| {title} | {took * 1000:.0f} ms |\n"
        for title, took in sorted(times.items(), key=lambda found: -found[1])[:8]
    )
    return f"""\
# What a fleet costs Prometheus

Written by `benchmarks/fleet.py --write`: {len(ROUTES)} routes, {len(OPERATIONS)} operations,
{len(WORKERS)} workers a host, {hosts:,} hosts.

| | a host | {hosts:,} hosts |
| --- | --- | --- |
| series | {total} | {total * hosts:,} |
| a scrape | {size / 1000:.0f} kB, gzip {packed / 1000:.1f} kB | {size * hosts / 1e6:.0f} MB |
| samples a second at a scrape each 15 s | {total / 15:.0f} | {total * hosts / 15:,.0f} |

The bar is {BAR} series a host: {"met" if total <= BAR else f"exceeded by {total - BAR}"}.
Of them belong to workers {blocks["worker"]}, to routes {blocks["route"]}, to operations
{blocks["operation"]}, to the host {blocks["host"]}. The largest:

| metric | series a host |
| --- | --- |
{largest}
## The overview over all hosts

{minutes} minutes at {STEP} s, all hosts chosen, one query at a time on a machine with two cores
that did other work, too; each asked once, with cold caches. All panels together:
{sum(times.values()):.1f} s, the slowest panels:

| panel | time |
| --- | --- |
{slowest}
A fleet of this size chooses some instances, or records the sums of closes and violations by rules
of its own: these two have most series.
"""


def _owner(metric: Metric) -> str:
    for label, owner in (
        ("worker", Block.WORKER),
        ("http_route", Block.ROUTE),
        ("graphql_operation_name", Block.OPERATION),
    ):
        if label in metric.labels:
            return str(owner)
    return "host"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    times = measure(given.hosts, given.minutes) if given.hosts else {}
    text = report(given.hosts, given.minutes, times)
    print(text)
    if given.write:
        (ROOT / "docs/fleet.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
