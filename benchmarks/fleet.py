"""What 1,000 hosts cost Prometheus: series, size of a scrape, time of the overview's queries.

    python benchmarks/fleet.py [--hosts 1000] [--minutes 5] [--write]

Every host answers what the one of benchmarks/host.py does: 8 workers, 3 routes, 10 operations.
promtool turns the samples of all hosts into blocks, and a real Prometheus answers the queries of
the overview over them.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.host import (  # noqa: E402  # a script is not on the path
    BAR,
    MIXED,
    ROUTES,
    SUBSCRIPTIONS,
    WORKERS,
    scrape,
    series,
)

PORT = 29592
STEP = 15
END = 1_767_268_800
_open = build_opener(ProxyHandler({})).open


def answer(operations: Mapping[str, int]) -> str:
    """One host's answer to a scrape."""
    with tempfile.TemporaryDirectory(prefix="host-") as name:
        return scrape(Path(name), operations)


def labelled(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"


def needed(families: list[Metric]) -> list[Metric]:
    """What the overview reads: only this is written for all hosts."""
    text = (ROOT / "grafana/dashboards/websocket-overview.json").read_text()
    return [family for family in families if family.name in text]


def samples(families: list[Metric], hosts: int, minutes: int) -> Iterator[str]:
    """Yield all hosts' samples as OpenMetrics text."""
    times = range(END - 60 * minutes, END + 1, STEP)
    for family in needed(families):
        yield f"# TYPE {family.name} {family.type}\n"
        for host in range(hosts):
            where = {"job": "fleet", "instance": f"host-{host:04}:10464"}
            for sample in family.samples:
                one = labelled(sample.name, where | sample.labels)
                yield "".join(
                    f"{one} {(t - times[0]) // STEP if family.type != 'gauge' else 1} {t}\n"
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


def measure(families: list[Metric], hosts: int, minutes: int) -> dict[str, float]:
    """Return the times of the overview's queries by title, the slowest of a panel."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        text = folder / "fleet.om"
        with text.open("w", encoding="utf-8") as out:
            out.writelines(samples(families, hosts, minutes))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
        command += [str(text), str(folder / "tsdb")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)
        text.unlink()
        with prometheus(folder) as base:
            times: dict[str, float] = {}
            for title, instant, expr in overview():
                took = ask(base, instant, expr, minutes)
                times[title] = max(took, times.get(title, 0.0))
    return times


def report(text: str, hosts: int, minutes: int, times: dict[str, float]) -> str:
    """Return the page."""
    found = series(text)
    total = sum(found.values())
    most, least = (sum(series(answer(kinds)).values()) for kinds in (SUBSCRIPTIONS, {}))
    size, packed = len(text.encode()), len(gzip.compress(text.encode()))
    kinds = ", ".join(f"{number} {kind}" for kind, number in MIXED.items())
    largest = "".join(f"| `{name}` | {count} |\n" for name, count in found.most_common(10))
    slowest = "".join(
        f"| {title} | {took * 1000:.0f} ms |\n"
        for title, took in sorted(times.items(), key=lambda found: -found[1])[:8]
    )
    return f"""\
# What a fleet costs Prometheus

Written by `benchmarks/fleet.py --write`: a host serves connections on {len(ROUTES)} routes, beside
which `other` is always there, with {WORKERS} workers, and has run {sum(MIXED.values())} GraphQL
operations ({kinds}). Its series are counted from what its sidecar answers.

| | a host | {hosts:,} hosts |
| --- | --- | --- |
| series | {total} | {total * hosts:,} |
| series, were all operations subscriptions | {most} | {most * hosts:,} |
| series without GraphQL | {least} | {least * hosts:,} |
| a scrape | {size / 1000:.0f} kB, gzip {packed / 1000:.1f} kB | {size * hosts / 1e6:.0f} MB |
| samples a second at a scrape each 15 s | {total / 15:.0f} | {total * hosts / 15:,.0f} |

The bar is {BAR} series a host: {"met" if total <= BAR else f"exceeded by {total - BAR}"}. Close
codes and violations that a host has seen come on top, one series each on their route; which ones
wait for their first event is in [metrics.md](metrics.md#series-that-wait). The largest:

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
A fleet of this size chooses some instances, or records sums by rules of its own.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = answer(MIXED)
    families = list(text_string_to_metric_families(text))
    times = measure(families, given.hosts, given.minutes) if given.hosts else {}
    page = report(text, given.hosts, given.minutes, times)
    print(page)
    if given.write:
        (ROOT / "docs/fleet.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
