"""Everything of a form but the content of its files: delimiters, heads and fields. Nothing here waits.

They go through the parser of a library, in small pieces, for it looks at some of that byte by byte. The library is
shown the bytes up to the end of a file's head and those from the next delimiter on, and takes that for a file without
content.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from tusd_py.protocol.forms import PartHead, bad_form, parse_head, parse_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# What parts are called: those that are files, and one that has the name of a file that brings none.
FILE = "file"
FILENAME = "filename"

# Bytes that the library sees at once. Even byte by byte that takes few milliseconds, and then others have their turn.
PIECE = 4 * 1024

# Bytes of a form that are not the content of its files: so many for all, and for each file that there may be.
OVERHEAD = 256 * 1024
OVERHEAD_OF_A_FILE = 8 * 1024

# Fields besides the files, and bytes in each; fields in the head of a part, and bytes in each.
MAX_FIELDS = 128
MAX_FIELD = 64 * 1024
MAX_HEAD_FIELDS = 8
MAX_HEAD_FIELD = 4 * 1024

_END_OF_HEAD = b"\r\n\r\n"

# The library has a line in the log for every malformed form. The client is told, and the request is logged as it is.
_SILENT = logging.Logger("form", logging.CRITICAL + 1)


def max_overhead(max_files: int) -> int:
    """Return how many bytes of a form may be something else than the content of its files."""
    return OVERHEAD + max_files * OVERHEAD_OF_A_FILE


class FormParser:
    """Everything of a form but the content of its files.

    ``file`` is the head of a file as soon as it is there, until ``end_file`` is called: then its content is over, and
    what is parsed next begins with the delimiter. ``names`` are the values of the fields that name files, in order.
    ``has_ended`` tells that the last delimiter was there.
    """

    def __init__(self, boundary: bytes, *, max_overhead: int) -> None:
        self.file: PartHead | None = None
        self.names: list[str] = []
        self.has_ended = False
        self._has_begun = False
        self._room = max_overhead
        self._before = b""
        self._fields: dict[bytes, bytes] = {}
        self._field_name = bytearray()
        self._field_value = bytearray()
        self._part = PartHead("")
        self._parts = 0
        self._value = bytearray()
        self._size = 0
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._take_field_name,
            "on_header_value": self._take_field_value,
            "on_header_end": self._end_field,
            "on_headers_finished": self._end_head,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(
            boundary, callbacks, max_header_count=MAX_HEAD_FIELDS, max_header_size=MAX_HEAD_FIELD
        )
        self._parser.logger = _SILENT

    def parse(self, chunk: bytes, start: int) -> int:
        """Take some bytes of ``chunk`` from ``start`` on, and return where they end: not behind the end of a head.

        Raises:
            BadRequest: this is no form, or there is too much in it besides its files.
        """
        # With the last bytes that came before, as the end of a head may come in two chunks.
        window = self._before + chunk[start : start + PIECE]
        found = window.find(_END_OF_HEAD)
        stop = len(window) if found < 0 else found + len(_END_OF_HEAD)
        piece = window[len(self._before) : stop]
        self._before = window[:stop][1 - len(_END_OF_HEAD) :]
        self._room -= len(piece)
        if self._room < 0:
            raise bad_form("there is too much in the form besides its files")
        try:
            self._parser.write(piece if self._has_begun else self._without_preamble(piece))
        except MultipartParseError as error:
            # The library tells its limits from its grammar by words alone.
            if "exceeded" in str(error):
                raise bad_form(
                    f"the head of a part has more than {MAX_HEAD_FIELDS} lines, or one of more than "
                    f"{MAX_HEAD_FIELD} bytes, such as a very long name"
                ) from None
            raise bad_form("the form is malformed") from None
        return start + len(piece)

    def _without_preamble(self, piece: bytes) -> bytes:
        """Drop line ends before the first delimiter. The library drops more behind them, but not in another chunk."""
        rest = piece.lstrip(b"\r\n")
        self._has_begun = bool(rest)
        return rest

    def end_file(self) -> None:
        """Go on behind the content of ``file``, which did not pass here."""
        self.file = None
        self._before = b""

    # What the library finds

    def _begin_part(self) -> None:
        self._fields.clear()
        self._value.clear()
        self._size = 0

    def _take_field_name(self, data: bytes, start: int, end: int) -> None:
        self._field_name += data[start:end]

    def _take_field_value(self, data: bytes, start: int, end: int) -> None:
        self._field_value += data[start:end]

    def _end_field(self) -> None:
        name = bytes(self._field_name).lower()
        if name in self._fields:
            raise bad_form("a part of the form has a field twice in its head")
        self._fields[name] = bytes(self._field_value)
        self._field_name.clear()
        self._field_value.clear()

    def _end_head(self) -> None:
        self._part = parse_head(self._fields)
        if self._part.name == FILE:
            self.file = self._part
            return
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise bad_form(f"the form has more than {MAX_FIELDS} fields besides its files")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part.name != FILE, "the content of files does not pass here"
        self._size += end - start
        # A name may be as long as one in the head of a part: it is kept, and so much of it for every form.
        most = MAX_HEAD_FIELD if self._part.name == FILENAME else MAX_FIELD
        if self._size > most:
            raise bad_form(f"a field of the form holds more than {most} bytes")
        if self._part.name == FILENAME:
            self._value += data[start:end]

    def _end_part(self) -> None:
        if self._part.name == FILENAME and (name := parse_name(bytes(self._value))):
            self.names.append(name)

    def _end(self) -> None:
        self.has_ended = True
