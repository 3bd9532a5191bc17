"""The ASGI side: the only place that knows Starlette."""
