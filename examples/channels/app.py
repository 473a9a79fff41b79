"""Two Django Channels consumers, served by Daphne or by Granian.

    daphne examples.channels.app:app
    granian --interface asgi --workers 2 examples.channels.app:app

A real project keeps its settings.py; here they stand inline, so that one file runs.
"""

from __future__ import annotations

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

from ws_lifecycle_metrics import LifecycleMiddleware

settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__)
django.setup()
urlpatterns = []


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close(4001)
        else:
            await self.send(text_data, bytes_data)


class Reject(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close()


sockets = URLRouter([path("echo", Echo.as_asgi()), path("reject", Reject.as_asgi())])
router = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})
app = LifecycleMiddleware(router)
