"""``tusd-py doctor URL``: what stands between a client and a tus server."""
