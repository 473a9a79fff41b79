"""Django's `runserver` with Channels and Daphne, for any ASGI application.

    python -m ws_lifecycle_metrics.conformance.runserver 127.0.0.1:8000 module:app

The settings are the user's where DJANGO_SETTINGS_MODULE names them, else the least there is.
"""

from __future__ import annotations

import os
import sys

from .load import load


def main(address: str, target: str) -> None:
    """Run the command until a signal ends it."""
    import django  # type: ignore[import-untyped]  # it ships no types

    # Found by its class, since an application's own settings need not list it.
    from daphne.management.commands.runserver import Command  # type: ignore[import-untyped]  # same
    from django.conf import settings  # type: ignore[import-untyped]  # the same
    from django.core.management import call_command  # type: ignore[import-untyped]  # the same

    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        load(target)  # it may hold its settings itself
    if not os.environ.get("DJANGO_SETTINGS_MODULE") and not settings.configured:
        settings.configure(DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
    settings.ASGI_APPLICATION = target.replace(":", ".")
    django.setup()
    call_command(Command(), address, use_reloader=False, skip_checks=True)


urlpatterns: list[object] = []

if __name__ == "__main__":
    main(*sys.argv[1:])
