"""What systemd is told (`Type=notify`): ready, alive, stopping; without systemd, nothing."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*states: str) -> bool:
    """Send states such as "READY=1" to the socket that systemd named; return if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract namespace
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto("\n".join(states).encode(), address)
        return True
    return False
