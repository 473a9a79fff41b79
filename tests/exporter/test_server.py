"""How many clients the sidecar takes, where descriptors are scarce."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from contextlib import ExitStack, closing, suppress

import pytest

from tests.store.support import eventually, running

LIMIT, CROWD = 256, 300

SERVE = """
    import asyncio, logging, resource, sys
    from ws_lifecycle_metrics.config import ExporterConfig
    from ws_lifecycle_metrics.exporter.server import Exporter

    most, limit = int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    logging.basicConfig(filename=sys.argv[4], format="%(message)s")
    config = ExporterConfig(service="test", directory=sys.argv[1], port=0, max_clients=most)

    async def main():
        exporter = Exporter(config)
        print((await exporter.start())[1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await exporter.aclose()

    asyncio.run(main())
"""


@pytest.mark.parametrize("most", [16, 512], ids=["a burst", "more than descriptors"])
def test_a_crowd_costs_no_more_descriptors_than_there_are(tmp_path, most):
    log = tmp_path / "log"
    with running(SERVE, tmp_path, most, LIMIT, log) as sidecar, ExitStack() as crowd:
        assert sidecar.stdin is not None
        assert sidecar.stdout is not None
        port = int(sidecar.stdout.readline())
        os.kill(sidecar.pid, signal.SIGSTOP)  # they all wait to be accepted at once
        for _ in range(CROWD):
            last = socket.create_connection(("127.0.0.1", port), timeout=20)
            crowd.enter_context(last)
        os.kill(sidecar.pid, signal.SIGCONT)
        with suppress(ConnectionResetError):
            last.recv(1)  # it is one too many
        crowd.close()
        eventually(lambda: answers(port))
        sidecar.communicate("\n", timeout=20)
    assert sidecar.returncode == 0
    assert "out of system resource" not in log.read_text()


def answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as asking:
        try:
            asking.request("GET", "/healthz")
            return asking.getresponse().status == 200
        except ConnectionError:
            return False
