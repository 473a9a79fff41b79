"""Every way in which a subscription can end, as a script for a peer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.graphql import schema
from tests.graphql.peer import SECONDS, TRANSPORT_WS, Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Script = Callable[[Peer], Awaitable[None]]

SLOW = "subscription Slow { slow }"
ENDS: dict[str, Script] = {}


def script(function: Script) -> Script:
    ENDS[function.__name__.replace("_", " ")] = function
    return function


async def source_ended() -> None:
    await asyncio.wait_for(schema.signals.ended.wait(), SECONDS)


async def slow_one(peer: Peer) -> None:
    """Subscribe to a source that gives one result and then waits for ever."""
    await peer.initialised()
    peer.subscribe(SLOW)
    await peer.until("next")


async def to_the_end(peer: Peer, query: str) -> None:
    """Subscribe to a source that ends, and leave after it."""
    await peer.initialised()
    peer.subscribe(query)
    await peer.until("complete")
    peer.leave()


@script
async def natural_end(peer: Peer) -> None:
    await to_the_end(peer, "subscription Count { count(to: 3) }")


@script
async def source_raises(peer: Peer) -> None:
    await to_the_end(peer, "subscription Boom { boom }")


@script
async def fields_fail_in_every_result(peer: Peer) -> None:
    await to_the_end(peer, "subscription Broken { brokenFields { n } }")


@script
async def client_complete(peer: Peer) -> None:
    await slow_one(peer)
    peer.complete()
    await source_ended()
    peer.leave()


async def two(peer: Peer, second: str, *, until: str) -> None:
    """Subscribe to a source that waits for ever, and then to another one."""
    await slow_one(peer)
    peer.subscribe(f"subscription Second {{ {second} }}", id="2")
    await peer.until(until)


@script
async def late_complete_of_another(peer: Peer) -> None:
    await two(peer, "count(to: 1)", until="complete")
    peer.complete("2")  # which has ended by itself
    peer.leave(1006)


@script
async def complete_of_one_of_two(peer: Peer) -> None:
    await two(peer, "slow", until="next")
    peer.complete("2")
    await source_ended()
    peer.leave(1006)


@script
async def client_disconnect(peer: Peer) -> None:
    await slow_one(peer)
    peer.leave(1000)


@script
async def abrupt_loss(peer: Peer) -> None:
    await slow_one(peer)
    peer.leave(1006)


@script
async def send_finds_the_client_gone(peer: Peer) -> None:
    await _refuse(peer, ConnectionResetError)


@script
async def send_fails(peer: Peer) -> None:
    await _refuse(peer, RuntimeError)


async def _refuse(peer: Peer, error: type[Exception]) -> None:
    await peer.initialised()
    peer.refuse, peer.refuse_after = error, 2  # the acknowledgement and one result
    peer.subscribe("subscription Many { many }")
    while await peer.message() is not None:
        pass
    if peer.protocol == TRANSPORT_WS:
        await source_ended()
    peer.leave(1006)


@script
async def validation_error(peer: Peer) -> None:
    await peer.initialised()
    peer.subscribe("subscription Bad { nowhere }")
    await peer.until("error")
    peer.leave()


@script
async def syntax_error(peer: Peer) -> None:
    await peer.initialised()
    peer.subscribe("subscription {{")
    await peer.until("error")
    peer.leave()


@script
async def unknown_operation(peer: Peer) -> None:
    await peer.initialised()
    peer.subscribe("subscription Count { count }", operationName="Nobody")
    await peer.until("error")
    peer.leave()


@script
async def refused_by_the_source(peer: Peer) -> None:
    await peer.initialised()
    peer.subscribe("subscription Refused { refused }")
    await peer.until("complete")
    peer.leave()


@script
async def duplicate_id(peer: Peer) -> None:
    await slow_one(peer)
    peer.subscribe(SLOW)
    await peer.until("next")  # or the close, by the newer protocol
    peer.leave()


@script
async def complete_in_the_same_burst(peer: Peer) -> None:
    await peer.initialised()
    peer.subscribe(SLOW)
    peer.complete()
    peer.subscribe("subscription Count { count(to: 1) }", id="2")
    while (await peer.until("complete")).get("id") == "1":
        pass
    peer.leave()


@script
async def app_task_cancelled(peer: Peer) -> None:
    await slow_one(peer)
    peer.task.cancel()
