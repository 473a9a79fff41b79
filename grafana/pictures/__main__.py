"""`python -m grafana.pictures`: draw each dashboard, light and dark, into docs/images/.

Needs promtool, prometheus, node, npm, chromium and pngquant (all in Debian). The packages of npm
(620 MB) go into the folder PICTURES_CACHE, by default below the temporary directory, and stay.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from .data import lines
from .story import END

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGES = ROOT / "docs" / "images"
DASHBOARDS = HERE.parent / "dashboards"
SOURCES = ("package.json", "build.mjs", "page.jsx", "query.js", "approximate.jsx", "scrollbars.js")
PROGRAMS = ("promtool", "prometheus", "node", "npm", "chromium", "pngquant")
SETTLE = 30_000  # milliseconds of the browser's clock
WIDTH = 1600
MARGIN, TITLE, UNIT = 16, 34, 38  # pixels, as in page.jsx: around it, above, of a panel's height
TRIES = 5
LIMIT = 400_000  # bytes of one picture

_open = build_opener(ProxyHandler({})).open


def build() -> Path:
    """Return the folder in which the page is built."""
    default = Path(tempfile.gettempdir()) / "ws-lifecycle-pictures"
    folder = Path(os.environ.get("PICTURES_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.copy(HERE / name, folder / name)
    if not (folder / "node_modules" / "@grafana" / "ui").exists():
        install = "npm install --legacy-peer-deps --ignore-scripts --no-audit --no-fund"
        subprocess.run([*install.split(), "--no-package-lock"], cwd=folder, check=True, timeout=900)
    subprocess.run(["node", "build.mjs"], cwd=folder, check=True, timeout=300)
    (folder / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css">'
        '<body style="margin:0"><div id="root"></div>'
        '<script type="module" src="page.js"></script>\n'
    )
    shutil.rmtree(folder / "dashboards", ignore_errors=True)
    shutil.copytree(DASHBOARDS, folder / "dashboards")
    return folder


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run a Prometheus that holds the made-up hour."""
    text = folder / "hour.om"
    with text.open("w", encoding="utf-8") as out:
        out.writelines(lines())
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, folder / "tsdb"]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    (folder / "prometheus.yml").write_text("{}\n")
    command = [
        *("prometheus", f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/tsdb", "--storage.tsdb.retention.time=100y"),
        *("--web.listen-address=127.0.0.1:29591", "--log.level=error"),
    ]
    process = subprocess.Popen(command)
    try:
        _wait("http://127.0.0.1:29591/-/ready")
        yield "http://127.0.0.1:29591"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str) -> None:
    deadline = monotonic() + 60
    while True:
        try:
            _open(url, timeout=5).close()
        except (URLError, OSError):
            if monotonic() > deadline:
                raise
            sleep(0.1)
        else:
            return


class Page(SimpleHTTPRequestHandler):
    """Serves the page, and Prometheus' API under the same origin."""

    def __init__(self, *arguments: object, source: str, **options: object) -> None:
        self._source = source
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    def do_GET(self) -> None:
        """Answer a file, or what Prometheus answers."""
        if not self.path.startswith("/api/"):
            super().do_GET()
            return
        try:
            with _open(self._source + self.path, timeout=60) as answer:
                status, body = answer.status, answer.read()
        except URLError as error:
            status, body = 502, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def page(folder: Path, source: str) -> Iterator[str]:
    """Serve the page on loopback."""
    handler = partial(Page, source=source, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def height(dashboard: Path) -> int:
    """Return the height of a dashboard's picture in pixels."""
    places = [panel["gridPos"] for panel in json.loads(dashboard.read_text())["panels"]]
    return UNIT * max(at["y"] + at["h"] for at in places) + TITLE + 2 * MARGIN


def draw(base: str, dashboard: Path, theme: str, scratch: Path) -> Path:
    """Draw one dashboard; returns the picture."""
    picture = IMAGES / f"{dashboard.stem}-{theme}.png"
    address = f"{base}/index.html?dashboard={dashboard.stem}&theme={theme}&to={END}"
    switches = (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
        " --disable-background-networking --disable-component-update --disable-sync"
        f" --virtual-time-budget={SETTLE} --window-size={WIDTH},{height(dashboard)}"
    )
    profile = f"--user-data-dir={scratch / picture.stem}"
    command = ["chromium", *switches.split(), profile, f"--screenshot={picture}", address]
    # Chromium sometimes takes a picture before all canvases are painted: what is right comes twice.
    seen = set[bytes]()
    while True:
        subprocess.run(command, check=True, timeout=180, stderr=subprocess.DEVNULL)
        if (drawn := picture.read_bytes()) in seen:
            break
        seen.add(drawn)
        if len(seen) == TRIES:
            raise RuntimeError(f"{picture.name} is drawn otherwise each time")
    shrink = ["pngquant", "--force", "--strip", "--ext=.png", "--speed=1", "128", str(picture)]
    subprocess.run(shrink, check=True, timeout=60)
    return picture


def _report(picture: Path) -> None:
    size = picture.stat().st_size
    too_large = " (more than the documentation should carry)" if size > LIMIT else ""
    sys.stdout.write(f"{picture.relative_to(ROOT)} {size // 1000} kB{too_large}\n")


def main(wanted: list[str]) -> int:
    """Draw all dashboards, or those whose names have one of the words of `wanted`."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        sys.stderr.write(f"needed and not installed: {', '.join(lacking)}\n")
        return 2
    IMAGES.mkdir(parents=True, exist_ok=True)
    folder = build()
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as scratch,
        prometheus(Path(scratch)) as source,
        page(folder, source) as base,
    ):
        for dashboard in sorted(DASHBOARDS.glob("*.json")):
            if wanted and not any(word in dashboard.stem for word in wanted):
                continue
            for theme in ("light", "dark"):
                _report(draw(base, dashboard, theme, Path(scratch)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
