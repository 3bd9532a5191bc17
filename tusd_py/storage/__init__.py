"""Where uploads are kept. ``base`` is the contract; every other file here is one way to keep it."""
