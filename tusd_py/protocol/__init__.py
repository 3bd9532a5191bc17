"""The protocols without their wires: what a request asks, whether it may, and what it is answered.

Standard library only, nothing that waits, no socket, no file, no clock: a request comes in as header fields, the time
comes in as an argument, and values come out. ``fields`` and ``digests`` know grammars, a dialect (``tus``) turns
fields into the messages of ``messages`` and results back into fields, and ``rules`` decides for all dialects alike.
"""
