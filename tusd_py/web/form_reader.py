"""A form as it comes: one file after the other, each straight into its upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tusd_py.errors import BadRequest, BodyTimedOut, ServerStopping
from tusd_py.intake import Body, Enough, Intake, Sink
from tusd_py.protocol.forms import PartHead, bad_form
from tusd_py.web.form_content import Content, ContentSink, delimiter_of
from tusd_py.web.form_parser import PIECE, FormParser, max_overhead
from tusd_py.web.wire import RequestBody

_NOTHING = memoryview(b"")


class FilePart(Body):
    """A file of a form: its head, and its content for as long as the next file is not asked for."""

    size = None

    def __init__(self, head: PartHead, reader: FormReader) -> None:
        self.head = head
        self._reader = reader

    async def feed(self, intake: Intake) -> None:
        """Put the content into ``intake`` as it comes.

        Raises:
            BadRequest: the form ends within the file, or goes on as no form does.
        """
        await self._reader.feed_content(intake)


class FormReader:
    """The files of the form in ``body``, at most ``max_files``.

    Whatever is not content of a file has to come within ``patience`` seconds from one file to the next, ``None`` for
    no limit. ``names`` are those that fields gave to files so far.
    """

    def __init__(self, body: RequestBody, boundary: bytes, *, max_files: int, patience: float | None) -> None:
        self._body = body
        self._delimiter = delimiter_of(boundary)
        self._parser = FormParser(boundary, max_overhead=max_overhead(max_files))
        self._max_files = max_files
        self._patience = patience
        self.names = self._parser.names
        self._files = 0
        # What has come and was not looked at: the bytes of a chunk from a position on.
        self._chunk = b""
        self._position = 0
        self._content: Content | None = None
        self._piece = _NOTHING
        self._deadline: asyncio.Timeout | None = None
        self._is_stopping = False

    async def next_file(self) -> FilePart | None:
        """Return the next file, ``None`` once the form is whole. The content of the last one must have been read.

        Raises:
            BadRequest: it is no form, ends too early, or has too many files.
            BodyTimedOut: the client took too long.
            ServerStopping: ``interrupt`` was called.
            ConnectionLost: the client is gone.
        """
        async with self._impatiently():
            while await self._parse_to_file():
                head = self._parser.file
                assert head is not None
                self._content = Content(self._delimiter)
                # Browsers send so where their user has chosen no file.
                if head.filename or not head.has_filename or await self.has_content():
                    self._count()
                    return FilePart(head, self)
        if not self._parser.has_ended:
            raise bad_form("the form ends before its last boundary")
        return None

    async def feed_content(self, intake: Sink) -> None:
        """Put the content of this file into ``intake``.

        Raises:
            BadRequest, ConnectionLost: see ``next_file``.
        """
        # What was read together with the head, or beyond the file before.
        if self._piece:
            await intake.put(self._piece)
            self._piece = _NOTHING
        if self._content is not None and self._position < len(self._chunk):
            await intake.put(self._next_piece(self._content))
        if self._content is None:
            return
        sink = ContentSink(self._content, intake)
        try:
            await self._body.feed(sink)
        except Enough:
            await sink.end()
            self._go_on_behind(self._content)
        else:
            raise bad_form("the form ends within a file")

    async def has_content(self) -> bool:
        """Tell whether there is anything in this file."""
        while not self._piece:
            if self._content is None:
                return False
            if not await self._has_bytes():
                raise bad_form("the form ends within a file")
            self._piece = self._next_piece(self._content)
        return True

    def interrupt(self) -> None:
        """Wait for nothing that is no file any more: the server stops."""
        self._is_stopping = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def _parse_to_file(self) -> bool:
        """Tell whether there is another file; if so, its content is what comes next."""
        parsed = 0
        while True:
            if not await self._has_bytes():
                return False
            before = self._position
            self._position = self._parser.parse(self._chunk, before)
            if self._parser.file is not None:
                return True
            parsed += self._position - before
            if parsed >= PIECE:
                parsed = 0
                await asyncio.sleep(0)

    def _next_piece(self, content: Content) -> memoryview:
        """Return what of the bytes at hand is content for certain."""
        piece = content.take(self._chunk, self._position)
        self._chunk, self._position = b"", 0
        if content.is_over:
            self._go_on_behind(content)
        return piece

    def _go_on_behind(self, content: Content) -> None:
        self._chunk, self._position, self._content = content.chunk, content.stop, None
        self._parser.end_file()

    async def _has_bytes(self) -> bool:
        """Tell whether there are bytes that were not looked at, and have them at hand."""
        while self._position == len(self._chunk):
            # Let go of before we wait: many may be silent at once.
            self._chunk, self._position = b"", 0
            chunk = await self._body.read()
            if chunk is None:
                return False
            self._chunk = chunk
        return True

    def _count(self) -> None:
        self._files += 1
        if self._files > self._max_files:
            most = "one file" if self._max_files == 1 else f"{self._max_files} files"
            raise BadRequest("ERR_TOO_MANY_FILES", f"the form has more than {most}; send no more than that in one")

    @asynccontextmanager
    async def _impatiently(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(0 if self._is_stopping else self._patience) as self._deadline:
                yield
        except TimeoutError:
            raise ServerStopping if self._is_stopping else BodyTimedOut(seconds=self._patience or 0) from None
        finally:
            self._deadline = None
