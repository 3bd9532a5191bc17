"""Who may write to an upload. ``base`` is the contract; ``memory`` serves one process, ``file`` all on one disk."""
