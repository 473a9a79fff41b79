"""Known faults of servers and frameworks, as data: which versions, what happens, who says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One known fault. Affected: from `since` (empty: the first) to before `fixed` (empty: none).

    `severity` is "error" where a worker or a connection hangs, dies or breaks, else "warning".
    """

    id: str
    package: str
    summary: str
    advice: str
    source: str
    severity: str = "error"
    since: str = ""
    fixed: str = ""

    def affects(self, version: str) -> bool:
        """Tell if a version has the fault; a version that is no number never has."""
        number = release(version)
        if not number:
            return False
        return (not self.since or number >= release(self.since)) and (
            not self.fixed or number < release(self.fixed)
        )

    @property
    def affected(self) -> str:
        """The range of versions as a person writes it."""
        if not self.since and not self.fixed:
            return "all versions"
        low = f">= {self.since}" if self.since else ""
        return ", ".join(filter(None, (low, f"< {self.fixed}" if self.fixed else "")))


def release(version: str) -> Version:
    """Return the numbers of a version's release: "2.3.2rc1" is (2, 3, 2)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = tuple(int(part) for part in match[0].split(".")) if match else ()
    while numbers and numbers[-1] == 0:  # 2.8 is 2.8.0
        numbers = numbers[:-1]
    return numbers


_GRANIAN = "https://github.com/emmett-framework/granian/"
_MEASURED = "docs/conformance.md: "

ADVISORIES: Final[tuple[Advisory, ...]] = (
    Advisory(
        id="granian-duplicate-connect",
        package="granian",
        fixed="2.3.2",
        summary="a receive() before the accept gets a second websocket.connect; the second accept"
        " raises 'ASGI flow error'",
        advice="update Granian; Strawberry's subscriptions over Channels break on every connection",
        source=f"{_GRANIAN}issues/591, {_GRANIAN}pull/592,"
        " https://github.com/strawberry-graphql/strawberry/issues/3877",
    ),
    Advisory(
        id="granian-deadlock",
        package="granian",
        since="2.2.6",
        fixed="2.7.1",
        summary="a cancelled or completed receive() can deadlock the worker for good",
        advice="update Granian; until then watch the workers' heartbeat from outside",
        source=f"{_GRANIAN}issues/750, {_GRANIAN}pull/802",
    ),
    Advisory(
        id="granian-reject-hang",
        package="granian",
        since="2.3.2",
        fixed="2.7.2",
        summary="a receive() after a reject hangs, and so does the client's handshake",
        advice="update Granian, or return right after a reject",
        source=_MEASURED + "reject-then-receive",
    ),
    Advisory(
        id="granian-pending-receive-freeze",
        package="granian",
        fixed="2.7.9",
        summary="an application that ends with a receive() in flight freezes the whole process;"
        " SIGTERM may be ignored",
        advice="update Granian, or cancel and await every reader before returning",
        source=f"{_GRANIAN}issues/864, {_GRANIAN}pull/866",
    ),
    Advisory(
        id="granian-silent-sends",
        package="granian",
        since="2.8.5",
        summary="sends to a client that has vanished succeed for ever, and memory grows",
        advice="read while you send: only receive() tells that the client is gone",
        source=_MEASURED + "sends-after-reset",
        severity="warning",
    ),
    Advisory(
        id="granian-close-with-pending-receive",
        package="granian",
        summary="a close sent while a receive() is in flight never returns, and the client gets no"
        " close frame",
        advice="cancel the receive() before closing; Channels' own closes (4400, 4408 …) hang",
        source=_MEASURED + "close-with-pending-receive",
    ),
    Advisory(
        id="granian-no-pings",
        package="granian",
        summary="it sends no pings, and answers them only while the application is in receive()",
        advice="send pings of your own protocol, so that half-open connections are noticed",
        source=_MEASURED + "ping-application-busy",
        severity="warning",
    ),
    Advisory(
        id="granian-subprotocol-panic",
        package="granian",
        since="2.3.1",
        summary="CR or LF in the accepted subprotocol panics the worker",
        advice="choose subprotocols from a fixed list, never from what the client sent",
        source=_MEASURED + "accept-subprotocol-with-newline",
    ),
    Advisory(
        id="hypercorn-close-codes",
        package="hypercorn",
        summary="every disconnect carries the code 1006, whatever the client sent",
        advice="do not decide by the code of a disconnect",
        source=_MEASURED + "client-closes-4242",
        severity="warning",
    ),
    Advisory(
        id="hypercorn-pongs-unchecked",
        package="hypercorn",
        summary="pings are sent, and a missing pong has no consequence",
        advice="time out silent clients in your own protocol",
        source="measured: a client that answers no ping stays connected",
        severity="warning",
    ),
    Advisory(
        id="daphne-unbounded-buffer",
        package="daphne",
        summary="send() never waits: what a slow client does not read stays in memory",
        advice="bound what you send by acknowledgements of your own protocol",
        source=_MEASURED + "back-pressure",
        severity="warning",
    ),
    Advisory(
        id="daphne-no-close-on-return",
        package="daphne",
        summary="the socket stays open when the application returns without a close; a handshake"
        " that it leaves unanswered is reset after up to 5 s, without a response",
        advice="send websocket.close on every path",
        source=_MEASURED + "return-without-close",
    ),
    Advisory(
        id="daphne-drops-empty-messages",
        package="daphne",
        summary="an empty text or empty bytes that the application sends never reach the client",
        advice="send no empty messages: it tests them for truth",
        source=_MEASURED + "empty-text",
        severity="warning",
    ),
    Advisory(
        id="strawberry-channels-sends-after-close",
        package="strawberry-graphql",
        summary="on Channels, results go on being sent after a close of its own, such as 4409",
        advice="the policy 'shield' drops them",
        source="measured: 12 to 13 results after 4409",
        severity="warning",
    ),
)


def advisories_for(package: str, version: str) -> tuple[Advisory, ...]:
    """Return the known faults of a version of a package, errors first."""
    found = [a for a in ADVISORIES if a.package == package and a.affects(version)]
    return tuple(sorted(found, key=lambda advisory: advisory.severity))
