"""Prometheus, Alertmanager, VictoriaMetrics and a webhook, as people run them, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from tests.servers.harness import HOST, ROOT, eventually
from ws_lifecycle_metrics.conformance.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("prometheus", "prometheus-alertmanager", "victoria-metrics")
RULES = ROOT / "grafana" / "alerts"
JOB = "websockets"
INTERVAL = 5  # seconds between scrapes, and between evaluations

_open = build_opener(ProxyHandler({})).open


def missing() -> list[str]:
    """Programs of the chain that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def get(url: str, **parameters: Any) -> Any:
    """Return the JSON, or else the text, of a loopback address."""
    try:
        with _open(f"{url}?{urlencode(parameters)}" if parameters else url, timeout=15) as answer:
            text = answer.read().decode()
    except HTTPError as error:
        error.close()  # it holds the answer
        raise
    return json.loads(text) if text[:1] in "{[" else text


class Webhook:
    """Notes every notification of Alertmanager with its receiver and time of arrival."""

    def __init__(self) -> None:
        self.alerts: list[tuple[float, str, dict[str, Any]]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                now = time.time()
                webhook.alerts += [(now, self.path[1:], alert) for alert in body["alerts"]]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def firing(self, name: str, **labels: str) -> tuple[float, str, dict[str, Any]] | None:
        """The first notification that this alert fires, with these labels."""
        for when, receiver, alert in list(self.alerts):
            pairs = alert["labels"]
            if (
                alert["status"] == "firing"
                and pairs["alertname"] == name
                and labels.items() <= pairs.items()
            ):
                return when, receiver, alert
        return None


@dataclass
class Chain:
    """The running chain."""

    prometheus: str
    victoria: str
    alertmanager: str
    webhook: Webhook
    logs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def query(self, expr: str, base: str = "") -> list[dict[str, Any]]:
        """The result of an instant query."""
        answer = get(f"{base or self.prometheus}/api/v1/query", query=expr)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def value(self, expr: str) -> float | None:
        """The only value of an instant query, None where there is no series."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else None

    def active_alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or fire."""
        return get(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]


def _start(chain: Chain, name: str, command: list[str], ready: str) -> None:
    log = chain.logs / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=chain.logs, stdout=out, stderr=subprocess.STDOUT)
    chain.processes.append(process)

    def answers() -> bool:
        assert process.poll() is None, f"{name} ended:\n{log.read_text()[-2000:]}"
        with suppress(OSError):
            get(ready)
            return True
        return False

    eventually(answers, 60, name)


def _alertmanager(folder: Path, port: int) -> Path:
    """The shipped configuration, with our webhook and without the wait for company."""
    config = yaml.safe_load((ROOT / "grafana/alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "1s", "group_interval": "2s"}
    for receiver in config["receivers"]:
        receiver["webhook_configs"][0]["url"] = f"http://{HOST}:{port}/{receiver['name']}"
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _prometheus(folder: Path, target: int, chain: Chain) -> Path:
    config = {
        "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
        "rule_files": [str(RULES / "*.yml")],
        "alerting": {
            "alertmanagers": [
                {"static_configs": [{"targets": [chain.alertmanager.removeprefix("http://")]}]}
            ]
        },
        "scrape_configs": [
            {"job_name": JOB, "static_configs": [{"targets": [f"{HOST}:{target}"]}]}
        ],
        "remote_write": [
            {
                "url": f"{chain.victoria}/api/v1/write",
                "queue_config": {"batch_send_deadline": "200ms"},
            }
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def running(folder: Path, target: int) -> Iterator[Chain]:
    """Run the whole chain against a sidecar's port; all of it ends with the block."""
    prometheus, victoria, alertmanager = (free_port() for _ in range(3))
    with ExitStack() as stack:
        webhook = Webhook()
        stack.callback(webhook.close)
        addresses = [f"http://{HOST}:{port}" for port in (prometheus, victoria, alertmanager)]
        chain = Chain(*addresses, webhook, folder)
        stack.callback(_stop, chain.processes)
        victoria_command = (
            f"victoria-metrics -httpListenAddr={HOST}:{victoria} -storageDataPath={folder}/vm"
            " -retentionPeriod=1d -search.latencyOffset=0s -memory.allowedBytes=256MB"
        )
        _start(chain, "victoria", victoria_command.split(), f"{chain.victoria}/health")
        alertmanager_command = (
            f"prometheus-alertmanager --config.file={_alertmanager(folder, webhook.port)}"
            f" --storage.path={folder}/am --web.listen-address={HOST}:{alertmanager}"
            " --cluster.listen-address="
        )
        _start(chain, "alertmanager", alertmanager_command.split(), f"{chain.alertmanager}/-/ready")
        prometheus_command = (
            f"prometheus --config.file={_prometheus(folder, target, chain)}"
            f" --storage.tsdb.path={folder}/tsdb --web.listen-address={HOST}:{prometheus}"
            " --enable-feature=exemplar-storage"
        )
        _start(chain, "prometheus", prometheus_command.split(), f"{chain.prometheus}/-/ready")
        yield chain


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=15)
