"""What is remembered of a user's providers, for as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """A value for each provider, told apart by identity.

    Not by hash, as a dictionary of weak keys does: a provider may be a dataclass, as Logfire's
    are, and have none. One with slots may take no weak reference: it is kept instead.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._known: dict[int, tuple[Callable[[], Any], T]] = {}

    def of(self, provider: Any) -> T:
        """Return the value of a provider, made when it is first asked for."""
        key = id(provider)
        known = self._known.get(key)
        if known is None or known[0]() is not provider:
            known = self._known[key] = self._reference(provider, key), self._make(provider)
        return known[1]

    def _reference(self, provider: Any, key: int) -> Callable[[], Any]:
        try:
            return weakref.ref(provider, self._forgetting(key))
        except TypeError:
            return lambda: provider

    def _forgetting(self, key: int) -> Callable[[weakref.ref[Any]], object]:
        def forget(gone: weakref.ref[Any]) -> None:
            known = self._known.get(key)
            if known is not None and known[0] is gone:  # else another one has its id by now
                del self._known[key]

        return forget

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)
