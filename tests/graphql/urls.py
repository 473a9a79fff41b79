"""Django's table of URLs; a test puts its view here."""

from __future__ import annotations

from typing import Any

urlpatterns: list[Any] = []
