"""Know the state of every ASGI WebSocket, and who broke the protocol."""
