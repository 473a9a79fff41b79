"""Whatever fails in this package, the application and the server notice nothing.

Each function of ours is made to raise in turn. What cannot be tried so is the passage itself:
the coroutine functions with what they call outside of the boundary, and the boundary.
"""

from __future__ import annotations

import inspect
import logging
from functools import partial
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.middleware.conversation import Conversation
from tests.middleware.scripts import NAMED
from tests.middleware.transparency import differences
from tests.support import Peer, books, finish, scope, totals
from ws_lifecycle_metrics import Config, LifecycleMiddleware, catalog, conversation, middleware
from ws_lifecycle_metrics.integrations import channels, litestar, starlette
from ws_lifecycle_metrics.protocol import fields, lifecycle
from ws_lifecycle_metrics.store import tally, worker, workers
from ws_lifecycle_metrics.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTS = [
    NAMED[name]
    for name in (
        "an echo",
        "a close of the application",
        "the application raises",
        "a receive raises, and the application goes on",
        "a send raises",
        "a send raises, and the application goes on",
        "cancelled in a receive, and it goes on",
        "cancelled in a send",
        "a receive while another waits",
        "tasks left behind go on",
        "the application sends junk 4",
        "the server delivers junk 4",
        "text that is not ASCII",
        "a strange scope 2",
    )
]
# What must run for anything to pass at all: boundaries, and what stands inline where a message
# passes, since a call would cost too much. Each is short, and gets nothing but a str or an int.
PASSAGE = {
    "Conversation.guard",
    "LifecycleMiddleware.__init__",
    "middleware.checked",
    "middleware.observe",
    "conversation.utf8_size",
}
# Where a fault cannot be counted: in the counting, before there is a worker, and where what
# raises is taken for a foreign object that may not be read.
UNCOUNTED = {
    "Worker.count_internal_error",
    "channels.find_router",
    "middleware.attended",
}


def may_go_uncounted(name: str) -> bool:
    return name in UNCOUNTED or name.startswith("fields.")


class Fault(Exception):  # noqa: N818  # it is one
    """What a broken function of ours raises."""


def functions(owner: Any) -> Iterator[str]:
    """Yield the names of what is defined in a class or a module and can be made to raise."""
    for name, value in vars(owner).items():
        if isinstance(owner, ModuleType) and not _is_ours(value):
            continue
        inner = value.fget if isinstance(value, property) else value
        inner = inner.__func__ if isinstance(inner, staticmethod) else inner
        if isinstance(inner, FunctionType) and not inspect.iscoroutinefunction(inner):
            yield name


def _is_ours(value: Any) -> bool:
    """Tell if a module's name is of this package, be it the module's own or imported."""
    return str(getattr(value, "__module__", "")).startswith("ws_lifecycle_metrics.")


OWNERS: list[Any] = [
    middleware.LifecycleMiddleware,
    conversation.Conversation,
    tally.Tally,
    lifecycle.Lifecycle,
    worker.Worker,
    type(worker.Worker.route),
    middleware,
    conversation,
    lifecycle,
    fields,
    logs,
    logs.RateLimit,
    channels,
    litestar,
    starlette,
]
OWNERS[5] = inspect.signature(worker.Worker.route, eval_str=True).return_annotation
TARGETS = {
    f"{owner.__name__.rpartition('.')[2]}.{name}": (owner, name)
    for owner in OWNERS
    for name in functions(owner)
}
UNKNOWN = (PASSAGE | UNCOUNTED) - TARGETS.keys()
TARGETS = {name: target for name, target in TARGETS.items() if name not in PASSAGE}


@pytest.fixture
def broken() -> Iterator[Callable[[str], list[str]]]:
    """Make a target raise; returns the list that each call is noted in."""

    def break_(name: str) -> list[str]:
        owner, attribute = TARGETS[name]
        calls: list[str] = []

        def fails(*_: Any, **__: Any) -> Any:
            calls.append(name)
            raise Fault(name)

        what = inspect.getattr_static(owner, attribute)
        patch.setattr(owner, attribute, property(fails) if type(what) is property else fails)
        return calls

    with pytest.MonkeyPatch.context() as patch:
        yield break_


@pytest.fixture(autouse=True)
def quick_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every line be logged: what a limit holds back would not be tried."""
    monkeypatch.setattr(logs, "_limit", logs.RateLimit(0.0))


def test_there_is_something_to_break() -> None:
    assert not UNKNOWN
    assert len(TARGETS) > 60
    assert {"Conversation._end", "Tally.publish", "Lifecycle.sent"} <= set(TARGETS)
    assert {"Worker.route", "Route.take"} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_traffic_is_the_same_with_a_fault(
    config: Config, broken: Callable[[str], list[str]], name: str
) -> None:
    wrap = partial(LifecycleMiddleware, config=config)
    Conversation(wrap, "< connect; > close").play()
    calls = broken(name)
    assert [differences(wrap, script) for script in SCRIPTS] == [[]] * len(SCRIPTS)
    counted = totals(books(config), catalog.INTERNAL_ERRORS.name)
    assert counted or not calls or may_go_uncounted(name)


@pytest.mark.parametrize("name", TARGETS)
def test_traffic_is_the_same_with_a_fault_at_the_start_of_a_worker(
    config: Config, broken: Callable[[str], list[str]], name: str
) -> None:
    broken(name)
    wrap = partial(LifecycleMiddleware, config=config)
    assert [differences(wrap, script) for script in SCRIPTS] == [[]] * len(SCRIPTS)


@pytest.mark.parametrize("name", ["Worker.drain", "middleware.existing"])
def test_lifespan_is_the_same_with_a_fault(
    config: Config, broken: Callable[[str], list[str]], name: str
) -> None:
    shutdown = {"type": "lifespan.shutdown"}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())

    wrapped = LifecycleMiddleware(app, config=config)
    workers.current(config)
    broken(name)
    peer = Peer([shutdown])
    finish(wrapped({"type": "lifespan"}, peer.receive, peer.send))
    assert seen[0] is shutdown


def test_fault_in_a_handler_of_the_log(config: Config) -> None:
    """A handler or filter of the user's may raise whatever our records do to it."""

    class Raises(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise Fault("filter")

    logger, filter_ = logging.getLogger("ws_lifecycle_metrics"), Raises()
    logger.addFilter(filter_)
    try:
        wrap = partial(LifecycleMiddleware, config=config)
        assert [differences(wrap, script) for script in SCRIPTS] == [[]] * len(SCRIPTS)
    finally:
        logger.removeFilter(filter_)


def test_after_many_faults_it_switches_itself_off(
    config: Config, broken: Callable[[str], list[str]]
) -> None:
    calls = broken("Lifecycle.sent")
    wrap = partial(LifecycleMiddleware, config=config)
    for _ in range(2 * middleware.MOST_FAULTS):
        Conversation(wrap, "< connect; > accept; > close").play()
        if totals(books(config), catalog.SWITCHED_OFF.name):
            break
    assert middleware.MOST_FAULTS <= len(calls) <= middleware.MOST_FAULTS + 2
    assert totals(books(config), catalog.INTERNAL_ERRORS.name) == len(calls)
    before = books(config)
    for _ in range(3):
        assert Conversation(wrap, "< connect; > accept; > text a; > close").play() is None
    assert books(config) == before
    assert totals(before, catalog.SWITCHED_OFF.name) == 1


def test_one_conversation_survives_many_faults(
    config: Config, broken: Callable[[str], list[str]]
) -> None:
    broken("Lifecycle.received")
    wrap = partial(LifecycleMiddleware, config=config)
    talk = Conversation(wrap, "< connect; > accept;" + "< bytes 1;" * 300 + "> close")
    assert talk.play() is None
    assert len(talk.peer.sent) == 2
    assert totals(books(config), catalog.SWITCHED_OFF.name) == 1


@pytest.mark.parametrize("name", [name for name in TARGETS if name.startswith("Lifecycle.")])
def test_a_fault_in_the_protocol_leaves_no_connection_behind(
    config: Config, broken: Callable[[str], list[str]], name: str
) -> None:
    wrap = partial(LifecycleMiddleware, config=config)
    broken(name)
    for end in ("> close", "raise", "cancel", "< disconnect 1000"):
        Conversation(wrap, f"< connect; > accept; < text a; > text a; {end}").play()
    assert totals(books(config), "active_connections") == 0


def test_faults_are_logged_with_where(
    config: Config, broken: Callable[[str], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    broken("Lifecycle.sent")
    Conversation(partial(LifecycleMiddleware, config=config), "< connect; > close").play()
    (record,) = [r for r in caplog.records if r.exc_info]
    assert record.name == "ws_lifecycle_metrics"
    assert record.exc_info[0] is Fault
    assert "not affected" in record.getMessage()


def test_no_room_for_a_worker(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("mmap.mmap", full)
    peer = Peer([{"type": "websocket.connect"}])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    finish(LifecycleMiddleware(app, config=config)(scope(), peer.receive, peer.send))
    assert peer.sent == [{"type": "websocket.close"}]
