"""Each option can be had from the environment, and a bad value is named."""

from __future__ import annotations

import dataclasses
import os
import re

import pytest

from ws_lifecycle_metrics.catalog import STUCK_REASONS
from ws_lifecycle_metrics.config import Config, ConfigError, ExporterConfig, environment_name
from ws_lifecycle_metrics.conformance.environment import unknown_variables

BOTH = (Config, ExporterConfig)
OPTIONS = [(cls, item) for cls in BOTH for item in dataclasses.fields(cls)]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("WS_LIFECYCLE_", "OTEL_")):
            monkeypatch.delenv(name)


FROM_ENVIRONMENT = {
    "service": ("chat", "chat"),
    "directory": ("/run/chat", "/run/chat"),
    "policy": ("shield", "shield"),
    "routes": ("/a, /b/{id},,", ("/a", "/b/{id}")),
    "max_routes": ("7", 7),
    "subprotocols": ("x,y", ("x", "y")),
    "max_subprotocols": ("0", 0),
    "operations": ("Orders,Chat", ("Orders", "Chat")),
    "max_operations": ("9", 9),
    "max_connections": (" 12 ", 12),
    "span_budget": ("none", None),
    "span_client_address": ("1", True),
    "otlp": ("true", True),
    "host": ("::1", "::1"),
    "web_config_file": ("web.yml", "web.yml"),
    "port": ("0", 0),
    "allowed_hosts": ("metrics.example", ("metrics.example",)),
    "max_clients": ("3", 3),
    "header_timeout": ("0.5", 0.5),
    "write_timeout": ("1e1", 10.0),
    "idle_timeout": ("2", 2.0),
    "collect_timeout": ("3", 3.0),
    **{f"stuck_{reason}": ("7.5", 7.5) for reason in STUCK_REASONS},
    **dict.fromkeys(("stuck_loop_blocked", "stuck_accept_starved"), ("2.5", 2.5)),
    **dict.fromkeys(("stall_miss", "stall_megamiss", "death_shown"), ("0.75", 0.75)),
    **dict.fromkeys(("cancel_stuck_closing", "faulthandler", "py_spy"), ("1", True)),
    **dict.fromkeys(("faulthandler_exit", "recycle_stuck"), ("yes", True)),
    **{f"recycle_{name}": ("4", 4.0) for name in ("after", "grace", "pause", "jitter")},
}
SETTABLE = [(cls, item.name) for cls, item in OPTIONS if "parse" in item.metadata]


@pytest.mark.parametrize(("cls", "option"), SETTABLE)
def test_an_option_comes_from_the_environment(monkeypatch, cls, option):
    if option not in FROM_ENVIRONMENT:
        pytest.fail(f"say in this table what the environment gives for {option}")
    text, value = FROM_ENVIRONMENT[option]
    monkeypatch.setenv(environment_name(option), text)
    assert getattr(cls(), option) == value


@pytest.mark.parametrize(("cls", "option"), SETTABLE)
def test_an_argument_wins_over_the_environment(monkeypatch, cls, option):
    default = getattr(cls(), option)
    monkeypatch.setenv(environment_name(option), FROM_ENVIRONMENT[option][0])
    assert getattr(cls(**{option: default}), option) == default


@pytest.mark.parametrize(("cls", "option"), SETTABLE)
def test_an_empty_variable_is_none(monkeypatch, cls, option):
    default = getattr(cls(), option)
    monkeypatch.setenv(environment_name(option), "")
    assert getattr(cls(), option) == default


@pytest.mark.parametrize(("cls", "item"), OPTIONS, ids=lambda part: getattr(part, "name", None))
def test_an_option_is_explained_in_a_sentence(cls, item):
    assert re.fullmatch(r"[A-Za-z].*\.", item.metadata["help"])
    if item.default is dataclasses.MISSING:
        assert item.metadata["default"] == getattr(cls(), item.name)


@pytest.mark.parametrize(
    ("environment", "service"),
    [
        ({}, "default"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_SERVICE_NAME": "shop", "WS_LIFECYCLE_SERVICE": "chat"}, "chat"),
        ({"OTEL_SERVICE_NAME": "../../etc/pass wd"}, "-..-etc-pass-wd"),
        ({"OTEL_SERVICE_NAME": "/"}, "-"),
        ({"OTEL_SERVICE_NAME": "..."}, "default"),
        ({"OTEL_SERVICE_NAME": "s" * 100}, "s" * 64),
    ],
)
def test_the_service_has_a_name_from_anywhere(monkeypatch, environment, service):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert Config().service == ExporterConfig().service == service


BAD = [
    *((Config, "service", bad) for bad in ("", ".", "..", "a/b", "x" * 65, "a\n", None, 7)),
    *((cls, "directory", bad) for cls in BOTH for bad in (None, 7, b"/run", "run", "~/x", "/a\0")),
    *((Config, "policy", bad) for bad in ("Observe", "", None, 3)),
    *((Config, option, bad) for option in ("route", "on_stuck") for bad in ("/chat", 7)),
    *((Config, option, bad) for option in ("routes", "subprotocols", "operations")
      for bad in ("/a", ["/a"], (1,), None)),
    *((Config, option, bad) for option in ("max_routes", "max_subprotocols", "max_operations")
      for bad in (-1, 1001, 1.5, "3", True, None)),
    *((Config, "max_connections", bad) for bad in (-1, 10_000_001, 1.5, "3", True, None)),
    *((Config, "span_budget", bad) for bad in (-1, 1_000_001, 1.5, "none", True)),
    (Config, "tracer_provider", "otlp"),
    *((Config, option, bad) for option in (
        "cancel_stuck_closing", "faulthandler", "faulthandler_exit", "span_client_address")
      for bad in (1, "yes", None)),
    *((Config, f"stuck_{reason}", bad) for reason in STUCK_REASONS
      for bad in (0, -1, float("nan"), float("inf"), 2e9, "1", True, None)),
    *((Config, option, bad) for option in ("stuck_accept_starved", "stall_miss", "death_shown")
      for bad in (0, -1, float("nan"), "1", True, None)),
    *((ExporterConfig, "host", bad) for bad in ("", None, 7)),
    *((ExporterConfig, "port", bad) for bad in (-1, 65536, "80", 1.0, None)),
    *((ExporterConfig, "allowed_hosts", bad) for bad in ("a", [1], (1,))),
    *((ExporterConfig, "web_config_file", bad) for bad in (None, 7, "a\0b")),
    *((ExporterConfig, "max_clients", bad) for bad in (0, -1, 10**6, None)),
    *((ExporterConfig, option, bad) for option in (
        "header_timeout", "write_timeout", "idle_timeout", "collect_timeout",
        "recycle_after", "recycle_grace")
      for bad in (0, -1, float("nan"), float("inf"), 2**60, "1", True, None)),
    *((Config, "stuck_loop_blocked", bad) for bad in (0.4, 0.9, 2e9)),
    (Config, "stall_megamiss", 0.1),
    *((ExporterConfig, option, -0.1) for option in ("recycle_pause", "recycle_jitter")),
    *((ExporterConfig, option, bad) for option in ("otlp", "py_spy", "recycle_stuck")
      for bad in (1, "yes", None)),
]  # fmt: skip


def test_a_pause_and_a_jitter_may_be_none():
    config = ExporterConfig(recycle_pause=0, recycle_jitter=0)
    assert (config.recycle_pause, config.recycle_jitter) == (0, 0)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Config, {"max_routes": 0, "max_subprotocols": 0, "max_operations": 0, "span_budget": 0}),
        (Config, {"max_routes": 1000, "max_subprotocols": 1000, "max_operations": 1000}),
        (Config, {"max_connections": 0, "span_budget": 1_000_000}),
        (Config, {"max_connections": 10_000_000, "span_budget": None, "stuck_ghost": 10**9}),
        (Config, {"stall_miss": 0.5, "stall_megamiss": 0.5, "stuck_loop_blocked": 0.5}),
        (ExporterConfig, {"port": 0, "max_clients": 1}),
        (ExporterConfig, {"port": 65535, "max_clients": 100_000, "idle_timeout": 10**9}),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_the_ends_of_a_range_are_accepted(cls, options):
    config = cls(**options)
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize(("cls", "option", "bad"), BAD)
def test_a_bad_value_is_named(cls, option, bad):
    with pytest.raises(ConfigError) as caught:
        cls(**{option: bad})
    assert f"{option}={bad!r}" in str(caught.value)
    assert "accepted" in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "option", "text"),
    [
        (Config, "max_routes", "many"),
        (Config, "max_connections", "1e3"),
        (ExporterConfig, "port", "http"),
        (ExporterConfig, "idle_timeout", "5s"),
    ],
)
def test_a_bad_variable_is_named(monkeypatch, cls, option, text):
    monkeypatch.setenv(environment_name(option), text)
    with pytest.raises(ConfigError, match=f"WS_LIFECYCLE_{option.upper()}.*{text!r}"):
        cls()


SWITCHES = [(cls, item.name) for cls, item in OPTIONS if item.type == "bool"]


@pytest.mark.parametrize(("cls", "option"), SWITCHES)
def test_a_switch_is_off_unless_asked_for(monkeypatch, cls, option):
    assert getattr(cls(), option) is False
    for text, value in {"1": True, "TRUE": True, "yes ": True, "0": False, "False": False}.items():
        monkeypatch.setenv(environment_name(option), text)
        assert getattr(cls(), option) is value
    monkeypatch.setenv(environment_name(option), "no")
    assert getattr(cls(), option) is False
    monkeypatch.setenv(environment_name(option), "maybe")
    with pytest.raises(ConfigError, match=f"{environment_name(option)}: 'maybe' is neither"):
        cls()
    with pytest.raises(ConfigError, match=f"{option}=1: accepted are True and False"):
        cls(**{option: 1})


@pytest.mark.parametrize(("option", "text"), [("policy", "loud"), ("max_routes", "-5")])
def test_a_variable_out_of_range_is_named(monkeypatch, option, text):
    monkeypatch.setenv(environment_name(option), text)
    with pytest.raises(ConfigError, match=f"{option}=.*{text}"):
        Config()


@pytest.mark.parametrize(
    ("cls", "option", "near"),
    [(Config, "polcy", "policy"), (Config, "max_route", "max_routes"),
     (ExporterConfig, "Port", "port"), (ExporterConfig, "timeout", "idle_timeout")],
)  # fmt: skip
def test_an_unknown_option_names_the_nearest(cls, option, near):
    with pytest.raises(ConfigError, match=f"unknown option '{option}'.*'{near}'"):
        cls(**{option: 1})


def test_an_unknown_option_like_no_other_names_all():
    with pytest.raises(ConfigError, match=r"'zzzz': accepted are service, directory, policy"):
        Config(zzzz=1)


def test_an_error_is_a_value_error_and_a_configuration_stays_as_it_is():
    assert issubclass(ConfigError, ValueError)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().policy = "strict"  # type: ignore[misc]  # the assignment is what is tested
    with pytest.raises(TypeError):
        Config("chat")  # type: ignore[misc]  # options have names


def test_variables_that_set_nothing_are_found():
    known = {environment_name(name): "" for name in ("policy", "service", "port", "otlp")}
    assert unknown_variables({**known, "PATH": "/bin"}) == {}
    assert unknown_variables({**known, "WS_LIFECYCLE_ROUTE": "", "WS_LIFECYCLE_??": ""}) == {
        "WS_LIFECYCLE_??": "",
        "WS_LIFECYCLE_ROUTE": "WS_LIFECYCLE_ROUTES",  # the callable cannot be had from a text
    }
