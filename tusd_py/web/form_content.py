"""The content of files in forms, on its way from the body of a request into an intake.

It is searched for the delimiter alone, at the speed of the memory, and copied no more often than that of other uploads.
"""

from __future__ import annotations

from tusd_py.intake import Enough, Sink
from tusd_py.protocol.forms import bad_form
from tusd_py.storage.base import Buffer

# Bytes that are copied to be searched. They stay in the cache of the processor, and the allocator has them at hand.
LOOK = 64 * 1024


def delimiter_of(boundary: bytes) -> bytes:
    """Return what parts are separated by. Source: RFC 2046, 5.1.1."""
    return b"\r\n--" + boundary


class Content:
    """The content of one part, up to the delimiter that ends it.

    What may be the beginning of a delimiter is held back until more is known. Once ``is_over``, what follows, from the
    delimiter on, are the bytes of ``chunk`` from ``stop`` on.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._held = b""
        self.is_over = False
        self.chunk = b""
        self.stop = 0

    @property
    def is_holding(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def take(self, chunk: bytes, start: int = 0) -> memoryview:
        """Return what is certainly content, of the bytes held back and of those of ``chunk`` from ``start`` on.

        Source: RFC 2046, 5.1.1: no line of the content begins as the delimiter does, whatever follows in it.

        Raises:
            BadRequest: one does.
        """
        if self._held:
            chunk = self._held + chunk[start:]
            start = 0
            self._held = b""
        stop = chunk.find(self._delimiter, start)
        if stop < 0:
            stop = self._possible_beginning(chunk, start)
        elif self._ends_at(chunk, stop):
            self.is_over, self.chunk, self.stop = True, chunk, stop
            return memoryview(chunk)[start:stop]
        self._held = chunk[stop:]
        return memoryview(chunk)[start:stop]

    def follow(self, data: Buffer) -> None:
        """Count ``data`` to what follows the content, which is over, or is empty."""
        if len(data):
            self.chunk = self.chunk[self.stop :] + bytes(data)
            self.stop = 0

    def _ends_at(self, chunk: bytes, at: int) -> bool:
        """Tell whether what looks like a delimiter is one; ``False`` where that does not show yet."""
        end = at + len(self._delimiter)
        after = chunk[end : end + 2]
        # Another part begins, or the form ends. Blanks before the end of the line are what gateways of mail may add and
        # clients must not; not every version of the library knows them.
        if after in (b"\r\n", b"--"):
            return True
        if after not in (b"", b"\r", b"-"):
            raise bad_form("a line of the file begins with the boundary of the form")
        return False

    def _possible_beginning(self, chunk: bytes, start: int) -> int:
        """Return where a delimiter begins that goes on behind ``chunk``, and the end of it where none does."""
        # There is one CR in a delimiter: it begins with it.
        found = chunk.rfind(b"\r", max(start, len(chunk) - len(self._delimiter) + 1))
        return found if found >= 0 and self._delimiter.startswith(chunk[found:]) else len(chunk)


class ContentSink:
    """Stands before the intake of a file, and takes the body of the form as an intake takes a body.

    Once the content is over it has ``Enough``, and ``end`` is to be called; ``content`` knows what follows.
    """

    def __init__(self, content: Content, intake: Sink) -> None:
        self._content = content
        self._intake = intake
        # Content that found no place in the slab in which it arrived.
        self._late = b""

    async def put(self, chunk: Buffer) -> None:
        """Take ``chunk`` in.

        Raises:
            Enough: the content is over.
            BadRequest: the form is malformed.
        """
        await self._put_late()
        await self._intake.put(self._content.take(bytes(chunk)))
        self._check()

    def hold(self, chunk: Buffer) -> None:
        """Take ``chunk`` over; ``put_held`` is to follow, or ``end``. Raises as ``put`` does."""
        piece = self._content.take(bytes(chunk))
        self._intake.hold(self._late + bytes(piece) if self._late else piece)
        self._late = b""
        self._check()

    async def put_held(self) -> None:
        """Take in what ``hold`` was given."""
        await self._intake.put_held()

    def buffer(self, expected: int = 0) -> memoryview:
        """Return memory for the next bytes: that of the intake, behind everything that is content for certain."""
        buffer = self._intake.buffer(expected)
        if self._late:
            # It is shorter than a delimiter, and this slab is new.
            buffer[: len(self._late)] = self._late
            self._intake.filled(len(self._late))
            self._late = b""
            buffer = self._intake.buffer(expected)
        return buffer

    def filled(self, size: int) -> bool:
        """Count in ``size`` bytes that were written to ``buffer()``; see ``Intake.filled``. Raises as ``put`` does."""
        buffer = self._intake.buffer()
        is_full = self._intake.filled(
            self._move(buffer, size) if self._content.is_holding else self._look(buffer, size)
        )
        self._check()
        return is_full

    def _look(self, buffer: memoryview, size: int) -> int:
        """Return how many of the first bytes of ``buffer`` are content for certain."""
        certain = position = 0
        while position < size and not self._content.is_over:
            stop = min(position + LOOK, size)
            certain += len(self._content.take(bytes(buffer[position:stop])))
            position = stop
        self._content.follow(buffer[position:size])
        return certain

    def _move(self, buffer: memoryview, size: int) -> int:
        """Do the same where bytes were held back, which come before those that are in the buffer already."""
        piece = self._content.take(bytes(buffer[:size]))
        fitting = min(len(piece), len(buffer))
        buffer[:fitting] = piece[:fitting]
        self._late = bytes(piece[fitting:])
        return fitting

    async def turn(self) -> None:
        """See ``Intake.turn``."""
        await self._intake.turn()

    def try_turn(self) -> bool:
        """See ``Intake.try_turn``."""
        return self._intake.try_turn()

    async def end(self) -> None:
        """Take in what is left, after ``Enough``."""
        await self._intake.put_held()
        await self._put_late()

    async def _put_late(self) -> None:
        late, self._late = self._late, b""
        if late:
            await self._intake.put(late)

    def _check(self) -> None:
        if self._content.is_over:
            raise Enough
