"""The sidecar's options."""

from __future__ import annotations

from typing import Any

import pytest

from ws_lifecycle_metrics.config import Config, ConfigError, ExporterConfig


def test_it_listens_on_the_loopback_unless_told_otherwise() -> None:
    config = ExporterConfig()
    assert (config.host, config.port) == ("127.0.0.1", 10464)


def test_it_finds_a_service_by_the_rule_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "a/chat")
    monkeypatch.setenv("WS_LIFECYCLE_DIRECTORY", "/run/here")
    assert ExporterConfig().service == Config().service == "a-chat"
    assert ExporterConfig().directory == Config().directory == "/run/here"


def test_the_environment_sets_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_LIFECYCLE_PORT", "9000")
    monkeypatch.setenv("WS_LIFECYCLE_HOST", "0.0.0.0")
    monkeypatch.setenv("WS_LIFECYCLE_ALLOWED_HOSTS", "sidecar, host.test,")
    monkeypatch.setenv("WS_LIFECYCLE_HEADER_TIMEOUT", "2.5")
    config = ExporterConfig(host="::1")
    assert (config.host, config.port) == ("::1", 9000)
    assert config.allowed_hosts == ("sidecar", "host.test")
    assert config.header_timeout == 2.5


def test_an_option_of_the_workers_is_not_one_of_the_sidecar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WS_LIFECYCLE_MAX_CONNECTIONS", "100000")
    assert ExporterConfig().max_clients == 512


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"port": 65536},
        {"port": "80"},
        {"port": True},
        {"host": ""},
        {"host": None},
        {"max_clients": 0},
        {"header_timeout": 0},
        {"write_timeout": float("nan")},
        {"idle_timeout": float("inf")},
        {"collect_timeout": "1"},
        {"allowed_hosts": "one.test"},
        {"service": "../x"},
        {"directory": 3},
        {"prot": 1},
    ],
    ids=str,
)
def test_a_bad_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ExporterConfig(**options)


def test_a_bad_value_of_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WS_LIFECYCLE_IDLE_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="WS_LIFECYCLE_IDLE_TIMEOUT: 'soon'"):
        ExporterConfig()
