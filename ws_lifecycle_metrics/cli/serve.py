"""`ws-lifecycle-metrics serve`: run the sidecar until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..config import Config, ConfigError, ExporterConfig
from .options import Refused, config_options, configured

if TYPE_CHECKING:
    from ..exporter.access import Access
    from ..exporter.server import Exporter
    from ..telemetry.otlp import Pusher

logger = logging.getLogger("ws_lifecycle_metrics")

_EXPORTER = "opentelemetry-exporter-otlp-proto-http"


@click.command()
@config_options(ExporterConfig)
def serve(**given: str | None) -> None:
    """Run the sidecar: metrics and health for all workers.

    It serves /metrics, /connections, /workers, /healthz, /readyz and an index at / for one
    service of this host. It changes nothing in the application, and tidies up after dead
    workers: their totals go into the archive. Only with --recycle-stuck it sends signals. SIGTERM
    or SIGINT ends it. With --otlp it also pushes the metrics each OTEL_METRIC_EXPORT_INTERVAL ms.
    """
    import asyncio

    config = configured(ExporterConfig, given)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_serve(config))
    except KeyboardInterrupt:
        pass  # where loops take no signals it is how Ctrl-C ends the run, in good order
    except OSError as error:
        raise Refused(
            f"cannot listen on {_address(config.host, config.port)}: {_why(error)}"
        ) from error


def _pusher(config: ExporterConfig, exporter: Exporter) -> Pusher:
    try:
        from ..telemetry.otlp import Pusher
    except ImportError as error:
        # Not the module that failed, which may be one that the exporter needs.
        raise Refused(f"--otlp: {_EXPORTER} not installed; pip install {_EXPORTER}") from error
    try:
        return Pusher(config.service, take=exporter.take)
    except ConfigError as error:
        raise Refused(str(error)) from error


async def _serve(config: ExporterConfig) -> None:
    import asyncio

    from ..exporter.server import Exporter

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop.set)
    try:
        exporter = Exporter(config)
    except ConfigError as error:
        raise Refused(str(error)) from error
    pusher = _pusher(config, exporter) if config.otlp else None
    try:
        host, port = await exporter.start()
        _announce(config, exporter.access, host, port)
        await asyncio.to_thread(_warn_of_unused, config)
        if pusher is not None:
            pusher.start()
        await stop.wait()
    finally:
        # In a thread, and bounded: a collector that is down must not keep the sidecar alive.
        if pusher is not None and not await asyncio.to_thread(pusher.close):
            logger.warning("the collector did not answer: the last push over OTLP is lost")
        await exporter.aclose()
    logger.info("stopped")


def _announce(config: ExporterConfig, access: Access, host: str, port: int) -> None:
    from ipaddress import ip_address

    from ..labels import safe_label
    from ..store.directory import service_path
    from ..store.snapshot import package_version

    logger.info(
        "ws-lifecycle-metrics %s serves %s://%s/metrics for the service %s in %s",
        package_version(),
        "https" if access.encrypts else "http",
        _address(host, port),
        config.service,
        safe_label(str(service_path(config.directory, config.service))),
    )
    there = {"encryption": access.encrypts, "password": access.identifies}
    missing = [name for name, has in there.items() if not has]
    if missing and not ip_address(host.partition("%")[0]).is_loopback:
        logger.warning(
            "other machines can reach it without %s: see web_config_file", " or ".join(missing)
        )


def _warn_of_unused(config: ExporterConfig) -> None:
    """Say once that no worker has come so far: the name may be wrong, or it is early."""
    from ..store.services import never_used

    if unused := never_used(Config(service=config.service, directory=config.directory)):
        logger.warning("%s", unused.text)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(error: OSError) -> str:
    # asyncio words the text anew and longer; a name that is not found has a negative number.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
