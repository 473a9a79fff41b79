"""Run the same script bare and through a middleware, and tell every difference.

A script says what the server answers to each call, what each task of the application does, and
in which order the tasks take turns, are cancelled, or are left behind. Nothing here knows
which middleware it is given: `differences` is what any transparent one must pass.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from tests.support import CONNECT, pause, scope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Wrap = Callable[[Any], Any]

FOR_EVER = 1_000
TURNS = 300
FORMS = ("function", "object", "awaitable class", "awaitable")


def brief(item: Any) -> str:
    text = repr(item)
    return text if len(text) < 200 else f"{text[:80]} … {text[-40:]}"


@dataclass(frozen=True, repr=False)
class Reply:
    """What the server does in one call: gives way, then returns the value, or raises it."""

    value: Any = None
    pauses: int = 0

    def __repr__(self) -> str:
        return f"Reply({brief(self.value)}, {self.pauses})"


@dataclass(frozen=True, repr=False)
class Step:
    """What a task does: receive, send or pause; `catch` is to go on after an exception."""

    do: str
    message: Any = None
    catch: bool = False

    def __repr__(self) -> str:
        return f"Step({self.do!r}, {brief(self.message)}, catch={self.catch})"


RECEIVE, PAUSE = Step("receive"), Step("pause")


def send(message: Any, catch: bool = False) -> Step:
    return Step("send", message, catch)


@dataclass(frozen=True, kw_only=True)
class Script:
    """One conversation. `schedule` holds whose turn it is, and the cancellation thrown then.

    `end` is what the main task returns, or raises; `join` is to wait for the other tasks
    before, else they are left behind and go on.
    """

    received: tuple[Reply, ...] = (Reply(CONNECT),)
    sent: tuple[Reply, ...] = ()
    main: tuple[Step, ...] = ()
    others: tuple[tuple[Step, ...], ...] = ()
    end: Any = None
    join: bool = True
    schedule: tuple[tuple[int, BaseException | None], ...] = ()
    make_scope: Callable[[], Any] = scope
    form: str = "function"
    coroutines: bool = True
    """Whether the server's awaitables are coroutines."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis asks the objects themselves, and some raise

    def objects(self) -> list[Any]:
        """Return everything that is handed through, but for the scope."""
        steps = chain(self.main, *self.others)
        replies = chain(self.received, self.sent)
        thrown = (cancel for _, cancel in self.schedule)
        messages = [step.message for step in steps]
        return [*messages, *(r.value for r in replies), *thrown, self.end]


class Awaitable:
    """An awaitable that is no coroutine."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine

    def __await__(self) -> Iterator[Any]:
        return self.coroutine.__await__()


def is_error(item: Any) -> bool:
    # isinstance() asks the object, and there are some here that may not be asked.
    return issubclass(type(item), BaseException)


class Run:
    """One run of a script: the tasks, driven by hand, and what was seen on both sides."""

    def __init__(self, script: Script, wrap: Wrap, scope: Any) -> None:
        self.script = script
        self.scope = scope
        self.seen: list[tuple[Any, ...]] = []
        self.calls = {"receive": 0, "send": 0}
        self.current = "main"
        self.stuck: set[str] = set()
        self.tasks: dict[str, Coroutine[Any, Any, Any]] = {"main": self.main(wrap)}

    # The server's side.

    def receive(self) -> Any:
        return self.call("receive", self.script.received, FOR_EVER)

    def send(self, message: Any) -> Any:
        return self.call("send", self.script.sent, 0, message)

    def call(self, kind: str, replies: tuple[Reply, ...], rest: int, *arguments: Any) -> Any:
        number = self.calls[kind]
        self.calls[kind] += 1
        self.seen.append((self.current, f"{kind} {number} called", *arguments))
        reply = replies[number] if number < len(replies) else Reply(pauses=rest)
        coroutine = self.answer(f"{kind} {number}", reply)
        return coroutine if self.script.coroutines else Awaitable(coroutine)

    async def answer(self, call: str, reply: Reply) -> Any:
        try:
            for _ in range(reply.pauses):
                if reply.pauses == FOR_EVER:
                    self.stuck.add(self.current)
                await pause()
        except BaseException as error:
            self.raised(f"{call} cancelled and", error)
            raise
        if is_error(reply.value):
            raise reply.value
        return reply.value

    # The application's side.

    async def main(self, wrap: Wrap) -> None:
        try:
            self.app = wrap(make_app(self.script.form, self.serve))
            result = await self.app(self.scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001  # it is noted
            self.raised("left", error)
        else:
            self.seen.append((self.current, "returned", result))

    async def serve(self, got: Any, receive: Any, send: Any) -> Any:
        self.seen.append((self.current, "scope", got))
        for number, steps in enumerate(self.script.others):
            self.tasks[f"task {number}"] = self.other(steps, receive, send)
        await self.take(self.script.main, receive, send)
        while self.script.join and self.tasks.keys() - self.stuck - {"main"}:
            await pause()
        if is_error(self.script.end):
            raise self.script.end
        return self.script.end

    async def other(self, steps: tuple[Step, ...], receive: Any, send: Any) -> None:
        try:
            await self.take(steps, receive, send)
        except BaseException as error:  # noqa: BLE001  # it is noted
            self.raised("ended", error)

    async def take(self, steps: tuple[Step, ...], receive: Any, send: Any) -> None:
        for step in steps:
            try:
                if step.do == "pause":
                    await pause()
                    continue
                result = await (receive() if step.do == "receive" else send(step.message))
            except GeneratorExit:
                raise
            except BaseException as error:
                self.raised(step.do, error)
                if not step.catch:
                    raise
            else:
                self.seen.append((self.current, f"{step.do} returned", result))

    def raised(self, where: str, error: BaseException) -> None:
        # Dropping a coroutine makes an exception of its own; all others are in the script.
        what = "GeneratorExit" if type(error) is GeneratorExit else error
        causes = (error.__cause__, error.__context__, error.__suppress_context__)
        self.seen.append((self.current, f"{where} raised", what, *causes))

    # The hand.

    def drive(self) -> None:
        """Give turns until nothing can go on, then drop what still waits."""
        for who, cancel in chain(self.script.schedule, repeat((0, None), TURNS)):
            ready = [name for name in self.tasks if cancel or name not in self.stuck]
            if not ready:
                break
            self.turn(ready[who % len(ready)], cancel)
        self.seen.append(("", "left waiting", *sorted(self.tasks)))
        for name, task in list(self.tasks.items()):
            self.current = name
            task.close()

    def turn(self, name: str, cancel: BaseException | None) -> None:
        self.current, task = name, self.tasks[name]
        if inspect.getcoroutinestate(task) == inspect.CORO_CREATED:
            cancel = None
        self.stuck.discard(name)
        try:
            yielded = task.send(None) if cancel is None else task.throw(cancel)
        except StopIteration:
            del self.tasks[name]
        else:
            kind = type(yielded)
            self.seen.append((name, "gave way to", f"{kind.__module__}.{kind.__qualname__}"))


def make_app(form: str, serve: Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]) -> Any:
    """Return an application of one of the `FORMS` around a coroutine function."""

    class Class:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments

        def __await__(self) -> Any:
            return serve(*self.arguments).__await__()

    class Object:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await serve(scope, receive, send)

    def awaitable(scope: Any, receive: Any, send: Any) -> Any:
        return Awaitable(serve(scope, receive, send))

    apps = {
        "function": serve,
        "object": Object(),
        "awaitable class": Class,
        "awaitable": awaitable,
    }
    return apps[form]


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts what is asked of it, but for the one timer of a worker's heartbeat."""

    asked = beats = 0

    def call_at(self, when: float, callback: Any, *arguments: Any, **options: Any) -> Any:
        beats = "heartbeat" in getattr(callback, "__module__", "") and not self.beats
        self.beats += beats
        self.asked += not beats
        return super().call_at(when, callback, *arguments, **options)

    def call_soon(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        return super().call_soon(*arguments, **options)

    def create_task(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        return super().create_task(*arguments, **options)

    def create_future(self) -> Any:
        self.asked += 1
        return super().create_future()


def run(script: Script, wrap: Wrap, scope: Any) -> tuple[Run, int]:
    """Run a script with a loop at hand; return the run, and what was asked of the loop."""
    for item in script.objects():
        if is_error(item):
            item.__cause__ = item.__context__ = item.__traceback__ = None
            item.__suppress_context__ = False
    loop = CountingLoop()

    async def inside() -> tuple[Run, int]:
        this = Run(script, wrap, scope)
        before = loop.asked
        this.drive()
        asked = loop.asked - before
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return this, asked

    try:
        return loop.run_until_complete(inside())
    finally:
        loop.close()


def bare(app: Any) -> Any:
    return app


def differences(wrap: Wrap, script: Script) -> list[str]:
    """Tell how a run through `wrap` differs from a bare one; nothing means: transparent."""
    scope = script.make_scope()
    given = [scope, *script.objects()]
    expected, _ = run(script, bare, scope)
    before = [photograph(item) for item in given]
    found, asked = run(script, wrap, scope)
    telling = []
    for was, is_ in zip(expected.seen, found.seen, strict=False):
        if not same(was, is_):
            telling.append(f"expected {brief(was)}, found {brief(is_)}")
            break
    if len(expected.seen) != len(found.seen):
        telling.append(f"expected {len(expected.seen)} things to happen, not {len(found.seen)}")
    if asked:
        telling.append(f"it asked {asked} things of the event loop")
    for item, picture in zip(given, before, strict=True):
        if not same(photograph(item), picture):
            telling.append(f"it changed {brief(item)}")
            restore(item, picture)
    return telling


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Compare by identity; texts, which name what happened, as texts."""
    return len(one) == len(other) and all(
        a is b or (type(a) is type(b) is str and a == b) for a, b in zip(one, other, strict=True)
    )


def photograph(item: Any) -> tuple[Any, ...]:
    """Return what a dict holds, as objects, and how far its generators were read."""
    if not issubclass(type(item), dict):
        return ()
    held = tuple(chain.from_iterable(dict.items(item)))
    return (*held, *(inspect.getgeneratorstate(x) for x in held if type(x) is GeneratorType))


def restore(item: Any, picture: tuple[Any, ...]) -> None:
    """Put back what a dict held: the scripts share their messages."""
    dict.clear(item)
    for key, value in zip(picture[::2], picture[1::2], strict=False):
        dict.__setitem__(item, key, value)


# What is no message, or a strange one.


class Angry(Mapping[str, Any]):
    """A mapping that raises whatever it is asked."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("not you")

    def __iter__(self) -> Any:
        raise RuntimeError("not you")

    def __len__(self) -> int:
        raise RuntimeError("not you")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not you")

    def __hash__(self) -> int:
        raise RuntimeError("not you")

    def __repr__(self) -> str:
        return "Angry()"


class Foreign(Mapping[str, Any]):
    """A well-behaved mapping that is no dict."""

    def __init__(self, **items: Any) -> None:
        self.items_ = items

    def __getitem__(self, key: str) -> Any:
        return self.items_[key]

    def __iter__(self) -> Any:
        return iter(self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def __repr__(self) -> str:
        return f"Foreign({self.items_!r})"


class AngryDict(dict[str, Any]):
    """A dict whose readers raise."""

    def get(self, *_: Any) -> Any:
        raise LookupError("not you")

    def __getitem__(self, _: Any) -> Any:
        raise LookupError("not you")

    def __len__(self) -> int:
        raise LookupError("not you")


class Inventive(dict[str, Any]):
    """A dict that keeps what it is asked for, as defaultdict does."""

    def __missing__(self, key: str) -> Any:
        self[key] = ""
        return ""


class Liar:
    """An object that cannot be asked for its class, truth, equality or hash."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not you")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not you")

    def __bool__(self) -> bool:
        raise RuntimeError("not you")

    __hash__ = None  # type: ignore[assignment]  # that is the point


class Word(str):
    """A text of a type of its own, as template engines have."""

    __slots__ = ()


def released() -> memoryview:
    view = memoryview(b"gone")
    view.release()
    return view


class Gone(Exception):  # noqa: N818  # servers name theirs as they like
    """As servers' own exceptions, which no two of them share."""


def noise() -> Iterator[BaseException]:
    """Make exceptions of all kinds that a server or an application may raise."""
    yield RuntimeError("flow")
    yield OSError("gone")
    yield ConnectionResetError()
    yield Gone()
    yield type("ClientDisconnected", (OSError,), {})()
    yield StopAsyncIteration()
    yield ExceptionGroup("both", [ValueError(), OSError()])
    yield BaseExceptionGroup("all", [KeyboardInterrupt()])
    yield KeyboardInterrupt()
    yield asyncio.CancelledError("why")
