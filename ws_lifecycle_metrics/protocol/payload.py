"""How much a message carries, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping

TEXT, BINARY = range(2)


def payload(message: object, kind: str) -> tuple[int | None, int]:
    """Return TEXT or BINARY, and the payload's bytes; None for anything else."""
    try:
        # A dict is one too, but to ask takes as long as all the rest.
        if type(message) is not dict and not isinstance(message, Mapping):
            return None, 0
        # Not by subscription: a mapping may invent the key, and then it has changed.
        if message.get("type") == kind:
            text, data = message.get("text"), message.get("bytes")
            if isinstance(text, str) and data is None:
                return TEXT, utf8_size(text)
            if text is None and isinstance(data, (bytes, bytearray, memoryview)):
                return BINARY, _bytes_size(data)
    except Exception:  # noqa: BLE001  # a foreign object may raise anything when it is read
        pass
    return None, 0


def is_plain(message: object, kind: int | None) -> bool:
    """Whether a message of the kind that `payload` found is, in an open connection, all right."""
    # Other buffers are tolerated at most: the rules say by whom.
    return type(message) is dict and (
        kind == TEXT or (kind == BINARY and type(message["bytes"]) is bytes)
    )


def _bytes_size(data: bytes | bytearray | memoryview) -> int:
    try:
        return memoryview(data).nbytes
    except ValueError:
        return 0  # a view that was released: whoever reads it next will say so


def utf8_size(text: str) -> int:
    """Return how many bytes a text takes as UTF-8."""
    # Only counted, so a lone surrogate, which the server will refuse, may pass here.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
