"""The guarded sidecar and a real Prometheus, set up word for word as docs/access.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from tests.servers.harness import HOST, ROOT, eventually
from tests.stack.chain import get
from tests.stack.conftest import skip_or_fail
from ws_lifecycle_metrics.conformance.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.stack
ADDRESS = "10.0.0.5"
PASSWORD = "correct horse"


def blocks(kind: str) -> list[str]:
    text = (ROOT / "docs/access.md").read_text()
    return re.findall(rf"^```{kind}\n(.+?)^```", text, re.DOTALL | re.MULTILINE)


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


def set_up(folder: Path, port: int) -> None:
    """Do what the page says, with another address."""
    certificate = re.search(r"^\$ (openssl .+?[^\\])$", blocks("console")[0], re.M | re.S)
    assert certificate is not None
    command = certificate[1].replace(ADDRESS, HOST)
    subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True, timeout=60)
    web, prometheus = blocks("yaml")
    (folder / "web.yml").write_text(web.replace("HASH", hashed(PASSWORD)))
    (folder / "password").write_text(PASSWORD)
    prometheus = prometheus.replace(f"{ADDRESS}:10464", f"{HOST}:{port}")
    (folder / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\n{prometheus}")


def test_prometheus_scrapes_a_guarded_sidecar(tmp_path: Path) -> None:
    programs = ("prometheus", "promtool", "openssl")
    if lacking := [name for name in programs if shutil.which(name) is None]:
        skip_or_fail(lacking)
    port, own = free_port(), free_port()
    set_up(tmp_path, port)
    checked = subprocess.run(
        ["promtool", "check", "web-config", "web.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    commands = (
        f"{sys.executable} -m ws_lifecycle_metrics serve --host {HOST} --port {port} "
        f"--directory {tmp_path}/segments --web-config-file web.yml",
        f"prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb "
        f"--web.listen-address={HOST}:{own}",
    )
    processes = []
    with (tmp_path / "log").open("wb") as log:
        try:
            processes = [
                subprocess.Popen(c.split(), cwd=tmp_path, stdout=log, stderr=log) for c in commands
            ]

            def target() -> dict[str, Any]:
                assert all(process.poll() is None for process in processes)
                try:
                    found = get(f"http://{HOST}:{own}/api/v1/targets")["data"]["activeTargets"]
                except OSError:
                    return {}
                return found[0] if found else {}

            eventually(lambda: target().get("health") == "up", 60, "a scrape")
            # Not its password file: Prometheus 3 reads that once.
            web = tmp_path / "web.yml"
            web.write_text(re.sub(r"\$2b\S+", lambda _: hashed("another"), web.read_text()))
            eventually(lambda: "401" in target().get("lastError", ""), 60, "a refusal")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=15)
