"""Every option, once: the environment and the command line are derived from these fields."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, cast

PREFIX = "WS_LIFECYCLE_"
POLICIES = ("observe", "shield", "strict")
Policy = Literal["observe", "shield", "strict"]
RouteCallable = Callable[[Any], "str | None"]
StuckCallable = Callable[[Any], object]
T = TypeVar("T")

MOST_SECONDS = 1_000_000_000  # thirty years; in ns it still fits into a word
TWO_BEATS = 0.5  # a loop that is silent for less may be between them
_MAY_BE_0 = ("recycle_pause", "recycle_jitter")


class ConfigError(ValueError):
    """An option that does not exist, or a value that it does not accept."""


def environment_name(option: str) -> str:
    """Return the environment variable that sets `option`, such as WS_LIFECYCLE_POLICY."""
    return PREFIX + option.upper()


def _names(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{value!r} is not a whole number") from None


def _number_or_none(value: str) -> int | None:
    return None if value.strip().lower() == "none" else _number(value)


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{value!r} is not a number of seconds") from None


def _option(default: T, help: str, *, name: str, parse: Callable[[str], object]) -> T:
    """Return a field whose default is the environment's value, else `default`."""

    def from_environment() -> object:
        text = os.environ.get(environment_name(name))
        if not text:
            return default
        try:
            return parse(text)
        except ConfigError as error:
            raise ConfigError(f"{environment_name(name)}: {error}") from None

    metadata = {"help": help, "parse": parse, "default": default}
    return cast("T", field(default_factory=from_environment, metadata=metadata))


def _stuck(reason: str, seconds: float, meaning: str) -> float:
    help = f"Seconds after which it is stuck, as {reason}: {meaning}."
    return _option(seconds, help, name=f"stuck_{reason}", parse=_seconds)


def _flag(value: str) -> bool:
    accepted = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return accepted[value.strip().lower()]
    except KeyError:
        raise ConfigError(f"{value!r} is neither 1, true, yes nor 0, false, no") from None


def _switch(name: str, help: str) -> bool:
    """Return a field that is off unless asked for."""
    return _option(False, help, name=name, parse=_flag)


def _default_service() -> str:
    name = os.environ.get(PREFIX + "SERVICE") or os.environ.get("OTEL_SERVICE_NAME") or "default"
    return _as_service(name)


def _as_service(name: str) -> str:
    """Turn a name from the environment, where any text may stand, into one for a directory."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".")[:64] or "default"


def _check_range(option: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{option}={value!r}: accepted is a whole number from {low} to {high}")


def _service_option() -> str:
    metadata = {
        "help": "Name that the workers and the sidecar of one service share.",
        "parse": str,
        "default": "default",
    }
    return field(default_factory=_default_service, metadata=metadata)


def _directory_option() -> str:
    return _option(
        "",
        "Where the services' segments are kept; empty: a directory of this user in shared memory.",
        name="directory",
        parse=str,
    )


def is_service_name(name: str) -> bool:
    """Whether a service can be called so: it names a directory."""
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", name) is not None


def _check_place(service: object, directory: object) -> None:
    if not isinstance(service, str) or not is_service_name(service):
        raise ConfigError(
            f"service={service!r}: accepted are 1 to 64 letters, digits, '.', '_' and "
            "'-', not starting with '.'"
        )
    absolute = isinstance(directory, str) and (not directory or os.path.isabs(directory))
    if not absolute or "\0" in cast("str", directory):
        raise ConfigError(f"directory={directory!r}: accepted is an absolute path as str")


def _check_seconds(option: str, value: object) -> None:
    least = 0 if option in _MAY_BE_0 else math.ulp(0)
    if type(value) not in (int, float) or not least <= cast("float", value) <= MOST_SECONDS:
        above = "from" if least == 0 else "above"
        raise ConfigError(f"{option}={value!r}: accepted are seconds {above} 0, to {MOST_SECONDS}")


def _check_least(option: str, value: float, least: float, what: str) -> None:
    if value < least:
        raise ConfigError(f"{option}={value!r}: accepted are {what} ({least:g} s) or more")


def _check_callable(option: str, value: object, takes: str) -> None:
    if value is not None and not callable(value):
        raise ConfigError(f"{option}={value!r}: accepted is a callable that takes {takes}")


def _check_switch(option: str, value: object) -> None:
    if type(value) is not bool:
        raise ConfigError(f"{option}={value!r}: accepted are True and False")


def _check_names(option: str, value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{option}={value!r}: accepted is a tuple of str")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Options of the middleware; each not given is read from the environment.

    Raises `ConfigError`, naming the option, for a value that is not accepted.
    """

    service: str = _service_option()
    directory: str = _directory_option()
    policy: Policy = _option(
        "observe",
        "observe; shield: drop sends after the close; strict: raise ProtocolViolation.",
        name="policy",
        parse=str,
    )
    route: RouteCallable | None = field(
        default=None,
        metadata={"help": "Callable from the scope to the route template, or None if unknown."},
    )
    routes: tuple[str, ...] = _option(
        (),
        "Route templates that always have their place; their series stand at 0 from the start.",
        name="routes",
        parse=_names,
    )
    max_routes: int = _option(
        50, "Route templates kept apart; more become 'other'.", name="max_routes", parse=_number
    )
    subprotocols: tuple[str, ...] = _option(
        ("graphql-transport-ws", "graphql-ws"),
        "Subprotocols that always have their place.",
        name="subprotocols",
        parse=_names,
    )
    max_subprotocols: int = _option(
        20, "Subprotocols kept apart; more become 'other'.", name="max_subprotocols", parse=_number
    )
    operations: tuple[str, ...] = _option(
        (),
        "GraphQL operation names that always have their place.",
        name="operations",
        parse=_names,
    )
    max_operations: int = _option(
        50,
        "GraphQL operation names kept apart; more become 'other'.",
        name="max_operations",
        parse=_number,
    )
    max_connections: int = _option(
        100_000,
        "Open connections of a worker seen singly; more are only counted.",
        name="max_connections",
        parse=_number,
    )
    span_budget: int | None = _option(
        cast("int | None", 2),
        "Messages of a connection, each way, that get a span of their own; none: all of them.",
        name="span_budget",
        parse=_number_or_none,
    )
    span_client_address: bool = _switch(
        "span_client_address", "Name the client's address on the span of a handshake."
    )
    tracer_provider: Any = field(
        default=None,
        metadata={"help": "OpenTelemetry TracerProvider; None: the global one."},
    )
    stuck_handshake: float = _stuck("handshake", 10.0, "neither accepted nor rejected")
    stuck_send_blocked: float = _stuck("send_blocked", 10.0, "one send() has not returned")
    stuck_closing: float = _stuck("closing", 30.0, "the end was seen, the application runs on")
    stuck_receive_withheld: float = _stuck(
        "receive_withheld", 30.0, "the application closed, the server delivers no disconnect"
    )
    stuck_draining: float = _stuck("draining", 30.0, "still there after the shutdown began")
    stuck_ghost: float = _stuck("ghost", 60.0, "the kernel has no socket for it")
    stuck_orphan_subscription: float = _stuck(
        "orphan_subscription", 5.0, "the subscription runs, its connection is gone"
    )
    stuck_loop_blocked: float = _stuck("loop_blocked", 5.0, "the event loop does not beat")
    stuck_accept_starved: float = _stuck("accept_starved", 5.0, "clients wait to be accepted")
    stall_miss: float = _option(
        0.2, "Delay of the event loop that counts as a miss.", name="stall_miss", parse=_seconds
    )
    stall_megamiss: float = _option(
        1.0,
        "Delay of the event loop at which the stack of its thread is captured.",
        name="stall_megamiss",
        parse=_seconds,
    )
    death_shown: float = _option(
        15.0,
        "Seconds for which a worker's death is shown at least, so that a scrape sees it.",
        name="death_shown",
        parse=_seconds,
    )
    on_stuck: StuckCallable | None = field(
        default=None,
        metadata={"help": "Callable that gets a `StuckEvent`, in a thread of its own."},
    )
    cancel_stuck_closing: bool = _switch(
        "cancel_stuck_closing", "Cancel the application's task when it is stuck in closing."
    )
    faulthandler: bool = _switch(
        "faulthandler", "Write the stacks of all threads when the loop is stuck, the GIL held too."
    )
    faulthandler_exit: bool = _switch(
        "faulthandler_exit", "Also end the process then, where the server starts another."
    )

    def __post_init__(self) -> None:
        _check_place(self.service, self.directory)
        if self.policy not in POLICIES:
            raise ConfigError(f"policy={self.policy!r}: accepted are {', '.join(POLICIES)}")
        _check_callable("route", self.route, "the scope")
        _check_callable("on_stuck", self.on_stuck, "an event")
        for option in ("routes", "subprotocols", "operations"):
            _check_names(option, getattr(self, option))
            _check_range(f"max_{option}", getattr(self, f"max_{option}"), 0, 1000)
        _check_range("max_connections", self.max_connections, 0, 10_000_000)
        if self.span_budget is not None:
            _check_range("span_budget", self.span_budget, 0, 1_000_000)
        if self.tracer_provider is not None and not hasattr(self.tracer_provider, "get_tracer"):
            raise ConfigError(
                f"tracer_provider={self.tracer_provider!r}: accepted is a TracerProvider"
            )
        for option in (item.name for item in fields(self)):
            if option.startswith(("stuck_", "stall_", "death_")):
                _check_seconds(option, getattr(self, option))
            elif option.startswith(("cancel_", "faulthandler", "span_client_")):
                _check_switch(option, getattr(self, option))
        miss, megamiss, blocked = self.stall_miss, self.stall_megamiss, self.stuck_loop_blocked
        _check_least("stall_megamiss", megamiss, miss, "stall_miss")
        _check_least("stuck_loop_blocked", blocked, megamiss, "stall_megamiss")
        _check_least("stuck_loop_blocked", blocked, TWO_BEATS, "two beats")


def checked(config: object) -> Config:
    """Return a configuration as it is; raises `ConfigError` for an object of another type."""
    if not isinstance(config, Config):
        kind = type(config).__name__
        raise ConfigError(f"config is of type {kind}: accepted is a Config, as in Config(policy=…)")
    return config


@dataclass(frozen=True, kw_only=True, slots=True)
class ExporterConfig:
    """Options of the sidecar; each not given is read from the environment. Times are in seconds.

    Raises `ConfigError`, naming the option, for a value that is not accepted.
    """

    service: str = _service_option()
    directory: str = _directory_option()
    host: str = _option("127.0.0.1", "Address to listen on.", name="host", parse=str)
    port: int = _option(10464, "Port to listen on; 0: any free one.", name="port", parse=_number)
    allowed_hosts: tuple[str, ...] = _option(
        (),
        "Further names by which clients may address it; the Host header must be a known one.",
        name="allowed_hosts",
        parse=_names,
    )
    # Not max_connections: in the environment that is the workers' option already.
    max_clients: int = _option(
        512, "Open client connections; above, the answer is 503.", name="max_clients", parse=_number
    )
    header_timeout: float = _option(
        5.0, "Time that a client has to send a request.", name="header_timeout", parse=_seconds
    )
    write_timeout: float = _option(
        10.0, "Time that a client has to take a response.", name="write_timeout", parse=_seconds
    )
    idle_timeout: float = _option(
        30.0, "Time that a connection may wait for a request.", name="idle_timeout", parse=_seconds
    )
    collect_timeout: float = _option(
        8.0, "Time that a collection may take.", name="collect_timeout", parse=_seconds
    )
    web_config_file: str = _option(
        "",
        "TLS and passwords, as Prometheus' exporters have it.",
        name="web_config_file",
        parse=str,
    )
    otlp: bool = _switch(
        "otlp", "Also push the metrics over OTLP; OTEL_EXPORTER_OTLP_* say where to."
    )
    py_spy: bool = _switch("py_spy", "Show the stacks of stuck workers by py-spy, if installed.")
    recycle_stuck: bool = _switch(
        "recycle_stuck", "End stuck workers, one at a time: SIGTERM, then SIGKILL."
    )
    recycle_after: float = _option(
        10.0, "Time that a worker has to be stuck first.", name="recycle_after", parse=_seconds
    )
    recycle_grace: float = _option(
        10.0, "Time from SIGTERM to SIGKILL.", name="recycle_grace", parse=_seconds
    )
    recycle_pause: float = _option(
        60.0, "Time from one worker to the next.", name="recycle_pause", parse=_seconds
    )
    recycle_jitter: float = _option(
        5.0, "Random time by which each is put off at most.", name="recycle_jitter", parse=_seconds
    )

    def __post_init__(self) -> None:
        _check_place(self.service, self.directory)
        if not isinstance(self.host, str) or not self.host:
            raise ConfigError(f"host={self.host!r}: accepted is a name or an address")
        _check_range("port", self.port, 0, 65535)
        if not isinstance(self.web_config_file, str) or "\0" in self.web_config_file:
            raise ConfigError(
                f"web_config_file={self.web_config_file!r}: accepted is a path as str"
            )
        _check_names("allowed_hosts", self.allowed_hosts)
        _check_range("max_clients", self.max_clients, 1, 100_000)
        for option in (item.name for item in fields(self) if item.type == "float"):
            _check_seconds(option, getattr(self, option))
        for option in ("py_spy", "recycle_stuck", "otlp"):
            _check_switch(option, getattr(self, option))


def _name_unknown_options(cls: type[T]) -> type[T]:
    """Make an unknown option a `ConfigError` with the nearest name, as a bad value is."""
    init = cls.__init__
    known = [item.name for item in fields(cast("Any", cls))]

    @functools.wraps(init)
    def checked(self: object, **options: object) -> None:
        for name in options.keys() - known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"accepted are {', '.join(known)}"
            raise ConfigError(f"unknown option {name!r}: {hint}")
        init(self, **options)

    cls.__init__ = checked  # type: ignore[method-assign]  # same signature, better error
    return cls


_name_unknown_options(Config)
_name_unknown_options(ExporterConfig)
