"""The server: the only place that knows uvicorn."""
