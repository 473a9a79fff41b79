"""Where things wait, and the file in which a worker tells of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_lifecycle_metrics.store.directory import Directory
from ws_lifecycle_metrics.watchdog import sidefile
from ws_lifecycle_metrics.watchdog.sidefile import Stack, Stacks
from ws_lifecycle_metrics.watchdog.stacks import MOST_FRAMES, chain, thread_stack

SEGMENT = "1-00.segment"
HERE = Path(__file__).name


async def innermost():
    await asyncio.Event().wait()


class Awaitable:
    def __await__(self):
        return innermost().__await__()


async def items():
    await innermost()
    yield 1


async def plain():
    await innermost()


async def through_an_object():
    await Awaitable()


async def through_an_async_generator():
    async for _ in items():
        pass


async def through_anext():
    await anext(items())


async def through_the_library():
    await asyncio.wait_for(innermost(), None)


@pytest.mark.parametrize(
    "application",
    [plain, through_an_object, through_an_async_generator, through_anext, through_the_library],
    ids=lambda application: application.__name__,
)
def test_the_chain_ends_in_the_last_line_of_the_users_code(application):
    lines, where = asyncio.run(_chain_of(application()))
    assert lines[0].endswith(f":{application.__name__}")
    assert f"{HERE}:" in where
    assert where.endswith(":innermost")
    assert lines[-1].endswith(":Event.wait")


async def _chain_of(awaitable):
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    try:
        return chain(awaitable)
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_of_a_deep_chain_the_end_is_kept():
    async def deep(depth):
        await (deep(depth - 1) if depth else innermost())

    lines, where = asyncio.run(_chain_of(deep(100)))
    assert len(lines) == MOST_FRAMES
    assert where.endswith(":innermost")


@pytest.mark.parametrize("thing", [None, 7, object(), iter([]), asyncio.sleep], ids=repr)
def test_what_shows_no_frames_has_no_chain(thing):
    assert chain(thing) == ((), "")


def test_a_thread_is_seen_and_never_its_values():
    secret = "hunter2"  # noqa: F841  # a local that must not be told
    lines, where = thread_stack(threading.get_ident())
    assert where.split(":")[-1] == "test_a_thread_is_seen_and_never_its_values"
    assert "hunter2" not in repr(lines)
    assert thread_stack(1) == ((), "")


def test_a_path_with_control_characters_breaks_no_log_line():
    names = {}
    source = "async def waits(inner): await inner()"
    exec(compile(source, "/srv/\x1b[31m\udcff\n/app.py", "exec"), names)
    lines, where = asyncio.run(_chain_of(names["waits"](innermost)))
    assert lines[0] == "/srv/\\x1b[31m\\udcff\\n/app.py:1:waits"
    assert where.endswith(":innermost")


@pytest.fixture
def directory(tmp_path):
    with Directory(tmp_path / "service", create=True) as opened:
        yield opened


def test_what_is_written_is_read(directory):
    told = Stacks(Stack(("a.py:1:f",), "a.py:1:f"), 7, {3: Stack(("b.py:2:g",), "b.py:2:g")})
    sidefile.write(directory, SEGMENT, told)
    assert sidefile.read(directory, SEGMENT) == told
    assert (directory.path / "1-00.stacks").stat().st_mode & 0o777 == 0o600
    directory.remove(SEGMENT)
    assert os.listdir(directory.path) == []


def test_the_file_is_bounded(directory):
    line = "/deep" * 300 + ".py:1:f"
    told = Stacks(connections={n: Stack((line,) * 200, line) for n in range(1000)})
    sidefile.write(directory, SEGMENT, told)
    assert (directory.path / "1-00.stacks").stat().st_size <= sidefile.MOST_BYTES
    read = sidefile.read(directory, SEGMENT)
    assert 0 < len(read.connections) <= sidefile.MOST_CONNECTIONS
    kept = "…" + line[-127:]  # the end tells more, and the cut is marked
    assert all(set(stack.lines) == {stack.where} == {kept} for stack in read.connections.values())


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"connections":7}', b"[" * 60000),
        b'{"connections":{"x":[[],""]}}',
        b'{"connections":{"1":"x"},"beats":1,"loop":[[],""]}',
        b'{"connections":{"1":[[1,null,{}],7]},"beats":1,"loop":[[],""]}',
    ],
    ids=repr,
)
def test_a_file_of_nonsense_tells_nothing_and_raises_nothing(directory, content):
    path = directory.path / "1-00.stacks"
    path.write_bytes(content)
    path.chmod(0o600)
    sidefile.read(directory, SEGMENT)


def test_a_file_that_others_may_write_a_link_and_a_fifo_are_not_read(directory, tmp_path):
    path = directory.path / "1-00.stacks"
    content = json.dumps({"connections": {"1": [["x:1:y"], ""]}, "beats": 1, "loop": [[], ""]})
    path.write_text(content)
    path.chmod(0o666)
    assert sidefile.read(directory, SEGMENT) == Stacks()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert sidefile.read(directory, SEGMENT) == Stacks()
    path.unlink()
    os.mkfifo(path, 0o600)
    assert sidefile.read(directory, SEGMENT) == Stacks()


def test_lines_of_any_length_fit_into_the_file(directory):
    long = tuple(f"/{'漢字' * 2000}/app.py:{line}:handler" for line in range(40))
    told = Stacks(Stack(long, long[-1]), 7, {n: Stack(long, long[0]) for n in range(3)})
    # Without connections there is nothing left that could be left out.
    assert len(sidefile._encode(told, [])) < sidefile.MOST_BYTES
    sidefile.write(directory, SEGMENT, told)
    read = sidefile.read(directory, SEGMENT)
    assert read.loop.where.endswith("漢字/app.py:39:handler")
    assert read.loop.where == read.loop.lines[-1]


@given(st.text(max_size=50))
def test_lines_of_any_text_are_harmless(tmp_path_factory, text):
    with Directory(tmp_path_factory.mktemp("x") / "service", create=True) as directory:
        sidefile.write(directory, SEGMENT, Stacks(Stack((text,), text), 0))
        read = sidefile.read(directory, SEGMENT)
    assert not {"\x1b", "\n", "\u202e"} & set(read.loop.where)
    assert read.loop.where.encode().decode() == read.loop.where  # no lone surrogate
