"""The bytes of a form: what of them is a file, wherever they are cut, and what the library would have said."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser
from starlette.types import Message

from tests.bodies import SmallSlabs, cut
from tests.forms import BOUNDARY, field_part, file_part, form, part
from tusd_py.errors import BadRequest
from tusd_py.intake import Enough
from tusd_py.web import form_content
from tusd_py.web.form_content import Content, ContentSink
from tusd_py.web.form_parser import (
    MAX_FIELD,
    MAX_FIELDS,
    MAX_HEAD_FIELD,
    MAX_HEAD_FIELDS,
    FormParser,
    max_overhead,
)
from tusd_py.web.form_reader import FormReader
from tusd_py.web.reception import Reception
from tusd_py.web.wire import RequestBody

DELIMITER = f"\r\n--{BOUNDARY}".encode()


@dataclass
class Read:
    """What a form was read as."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


async def read(chunks: Iterable[bytes], boundary: str, max_files: int) -> Read:
    left = iter(chunks)

    async def receive() -> Message:
        chunk = next(left, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    body = RequestBody(receive, None, Reception())
    reader = FormReader(body, boundary.encode(), max_files=max_files, patience=None)
    found = Read(names=reader.names)
    while (file := await reader.next_file()) is not None:
        slabs = SmallSlabs(100)
        await reader.feed_content(slabs)
        found.files.append((file.head.filename, slabs.content))
    return found


def read_form(chunks: Iterable[bytes], boundary: str = BOUNDARY, max_files: int = 1) -> Read:
    return asyncio.run(read(chunks, boundary, max_files))


def refusal(*chunks: bytes, boundary: str = BOUNDARY) -> str:
    with pytest.raises(BadRequest) as caught:
        read_form(chunks, boundary)
    return str(caught.value)


WHOLE = form(
    field_part("before", "\r\n\r\n--"),
    field_part("filename", "named.mp3"),
    file_part(b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n\r", filename=None),
    field_part("after", ""),
)


@pytest.mark.parametrize("size", range(1, len(WHOLE) + 1))
def test_a_form_may_be_cut_into_chunks_of_any_size(size: int) -> None:
    found = read_form(cut(WHOLE, size))
    assert found.files == [("", b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n\r")]
    assert found.names == ["named.mp3"]


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_a_form_may_be_cut_in_two_anywhere_but_not_short(at: int) -> None:
    assert read_form([WHOLE[:at], WHOLE[at:]]) == read_form([WHOLE])
    if at < len(WHOLE) - 2:
        # Nothing needs to follow the last boundary, not even the end of its line.
        assert "ends" in refusal(WHOLE[:at])
    else:
        assert read_form([WHOLE[:at]]) == read_form([WHOLE])


def read_by_library(body: bytes, boundary: str) -> list[bytes]:
    """Return the contents of all parts, as the library alone finds them."""
    contents: list[bytearray] = []
    parser = MultipartParser(
        boundary.encode(),
        {
            "on_part_begin": lambda: contents.append(bytearray()),
            "on_part_data": lambda data, start, end: contents[-1].extend(data[start:end]),
        },
    )
    parser.write(body)
    return [bytes(content) for content in contents]


@st.composite
def hard_forms(draw: st.DrawFn) -> tuple[str, Sequence[bytes], Sequence[int]]:
    """Give a boundary, contents of files made of what delimiters are made of, and where to cut."""
    boundary = draw(st.sampled_from(["a", "-", "--", "aa", "a-a", "ab'()b", BOUNDARY]))
    delimiter = f"\r\n--{boundary}".encode()
    atoms = [b"\r", b"\n", b"-", b"--", b"\r\n", b"\r\n\r\n", b"a", delimiter[:-1], delimiter[1:], delimiter, b" "]
    contents = st.lists(st.sampled_from(atoms), max_size=12).map(b"".join)
    allowed = contents.filter(lambda content: delimiter not in b"\r\n\r\n" + content)
    files = draw(st.lists(allowed, min_size=1, max_size=3))
    cuts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=40))
    return boundary, files, cuts


@given(hard_forms())
def test_what_is_read_is_what_was_sent_and_what_the_library_finds(
    example: tuple[str, Sequence[bytes], Sequence[int]],
) -> None:
    boundary, files, cuts = example
    body = form(*(file_part(content, "a", boundary) for content in files), boundary=boundary)
    chunks: list[bytes] = []
    start = 0
    while start < len(body):
        size = cuts[len(chunks) % len(cuts)]
        chunks.append(body[start : start + size])
        start += size

    found = read_form(chunks, boundary, max_files=3)

    assert [content for _, content in found.files] == list(files) == read_by_library(body, boundary)


async def read_directly(content: bytes, sizes: Sequence[int], *, aside: bool) -> tuple[bytes, bytes]:
    """Let a transport write a file and what follows it into slabs; return the content, and what was left of that."""
    found = Content(DELIMITER)
    slabs = SmallSlabs(len(DELIMITER) + 7)
    sink = ContentSink(found, slabs)
    rest = content + DELIMITER + b"--\r\n"
    for size in itertools.cycle(sizes):
        buffer = memoryview(bytearray(size)) if aside else sink.buffer()
        size = min(size, len(buffer), len(rest))
        assert size, "there is no end"
        buffer[:size] = rest[:size]
        rest = rest[size:]
        try:
            if aside:
                sink.hold(buffer[:size])
                await sink.put_held()
            elif sink.filled(size):
                await sink.turn()
        except Enough:
            await sink.end()
            break
    return slabs.content, found.chunk[found.stop :] + rest


ALMOST = st.sampled_from([b"\r", b"\n", b"\r\n", DELIMITER[:-1], DELIMITER[1:], b"x" * 9])


@given(
    st.lists(ALMOST, max_size=20).map(b"".join).filter(lambda content: DELIMITER not in content),
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([3, 20, form_content.LOOK]),
)
def test_what_is_read_into_slabs_is_what_was_sent(content: bytes, sizes: Sequence[int], aside: bool, look: int) -> None:
    with patch.object(form_content, "LOOK", look):
        kept, rest = asyncio.run(read_directly(content, sizes, aside=aside))
    assert kept == content
    assert rest == DELIMITER + b"--\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("after", [b"x", b"-x", b"\rx", b"\n", b"\0", b" \r\n", b"\t\r\n"])
def test_a_line_of_a_file_that_begins_as_a_delimiter_is_refused_wherever_it_is_cut(after: bytes, size: int) -> None:
    """RFC 2046, 5.1.1. Searching on behind each of them would be slow, and a client may send millions."""
    body = form(file_part(b"a" + DELIMITER + after + b"b"))
    assert "a line of the file begins with the boundary" in refusal(*cut(body, size))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\r\n" * 1000,
        DELIMITER[2:],
        b"--other\r\n" + file_part(b"x"),
        b"\r\na preamble\r\n" + form(file_part(b"x")),
        form(file_part(b"x")).replace(b"\r\n", b"\n"),
        form(f"--{BOUNDARY}\r\nno colon\r\n\r\nx\r\n".encode()),
        form(f"--{BOUNDARY}\r\n: x\r\n\r\nx\r\n".encode()),
        form(f"--{BOUNDARY}\r\n\r\nx\r\n".encode()),
        form(part('name="file"\r\nContent-Disposition: form-data; name="x"', b"x")),
        form(part('name="file"\r\nContent-Transfer-Encoding: base64', b"eA==")),
        form(file_part(b"x"))[:-4],
        form(file_part(b"x")[:-2]),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_is_no_form_is_refused_with_a_sentence(body: bytes, size: int) -> None:
    assert refusal(*cut(body, size)).endswith("; send the file as multipart/form-data, in a part with the name file")


def test_a_form_without_parts_has_no_files() -> None:
    assert read_form([form()]) == Read()


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (form(*[field_part("a", "")] * (MAX_FIELDS + 1)), "more than 128 fields"),
        (form(field_part("a", b"x" * (MAX_FIELD + 1))), "holds more than 65536 bytes"),
        (form(field_part("filename", b"x" * 4097)), "holds more than 4096 bytes"),
        (form(*[field_part("a", b"x" * MAX_FIELD)] * 5), "too much in the form besides its files"),
        (form(part('name="a"' + "".join(f"\r\nX-{n}: z" for n in range(MAX_HEAD_FIELDS)), b"")), "more than 8 lines"),
        (form(part(f'name="{"a" * MAX_HEAD_FIELD}"', b"")), "more than 4096 bytes"),
        (form(file_part(b"x")) + b"\r\n" * 200_000, "too much in the form besides its files"),
        (b"\r\n" * 200_000 + form(file_part(b"x")), "too much in the form besides its files"),
        (DELIMITER[2:] + b" " * 300_000 + form(file_part(b"x")), "malformed"),
        (form(field_part("a", "")[:-2] + DELIMITER + b" " * 300_000), "the form"),
    ],
)
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_there_is_a_limit_to_everything_but_files(body: bytes, trouble: str, size: int) -> None:
    assert trouble in refusal(*cut(body, size))


def test_as_much_as_the_limits_say_is_fine() -> None:
    fields = [field_part("a", b"x" * MAX_FIELD)] * 3 + [field_part("b", "")] * (MAX_FIELDS - 4)
    body = form(*fields, file_part(b"content", "a" * (MAX_HEAD_FIELD - 100)), field_part("filename", "unused"))
    found = read_form([body])
    assert found.files == [("a" * (MAX_HEAD_FIELD - 100), b"content")]


async def read_beside_others(*chunks: bytes) -> tuple[int, int]:
    """Read a form that will be refused; return how many chunks were read of it, and how many turns others had."""
    turns = taken = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def give() -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks:
            taken += 1
            yield chunk

    others = asyncio.create_task(take_turns())
    with pytest.raises(BadRequest):
        await read(give(), BOUNDARY, 1)
    others.cancel()
    return taken, turns


@pytest.mark.parametrize("field", [b"\r\n\r\n", DELIMITER + b"x", DELIMITER + b"-x", b"x"])
def test_others_have_their_turn_while_what_is_no_file_is_looked_at(field: bytes) -> None:
    """It may come in one large chunk, and is looked at byte by byte."""
    size = 60_000
    body = form(*[field_part("a", field * (size // len(field)))] * 5)
    _, turns = asyncio.run(read_beside_others(body))
    assert turns > max_overhead(1) // 4096 - 10


@pytest.mark.parametrize("empty", [f"--{BOUNDARY}\r\n\r\n\r\n".encode(), field_part("a", "")])
def test_of_very_many_parts_few_are_read(empty: bytes) -> None:
    taken, _ = asyncio.run(read_beside_others(*[empty * 100] * 1000))
    assert taken <= 2


@st.composite
def broken_forms(draw: st.DrawFn) -> bytes:
    """Give what is almost a form, or is one."""
    head = b'Content-Disposition: form-data; name="file"; filename="a"'
    field = b"Content-Disposition: form-data; name=filename"
    atoms = [b"\r\n", b"\r", b"\n", b"--", b"--" + BOUNDARY.encode(), DELIMITER, head, field, b"\r\n\r\n"]
    others = [b":", b'"', b";", b"name=", b"\xff", b"\0", b" ", b"x", b"filename*=UTF-8''%ff", b"Content-Type: a/b"]
    return b"".join(draw(st.lists(st.sampled_from(atoms * 3 + others), max_size=25)))


@given(broken_forms(), st.integers(1, 100))
def test_whatever_comes_is_a_form_or_refused_and_always_the_same(body: bytes, size: int) -> None:
    def outcome(*chunks: bytes) -> object:
        try:
            return read_form(chunks, max_files=2)
        except BadRequest as error:
            return type(error)

    assert outcome(*cut(body, size)) == outcome(body)


def test_files_without_name_and_content_are_those_that_nobody_chose() -> None:
    """HTML: a form is sent so when no file was chosen."""
    unchosen = file_part(b"", "")
    body = form(unchosen, file_part(b"content"), unchosen)
    for size in (1, 10, len(body)):
        assert read_form(cut(body, size)).files == [("sound.mp3", b"content")]
        assert read_form(cut(form(unchosen), size)).files == []
        assert read_form(cut(form(file_part(b"", "empty.mp3")), size)).files == [("empty.mp3", b"")]
        assert read_form(cut(form(file_part(b"x", "")), size)).files == [("", b"x")]


def test_a_file_too_many_is_refused_as_soon_as_its_head_is_there() -> None:
    first, second = file_part(b"1"), file_part(b"2")
    assert "more than one file" in refusal(first + second[: second.index(b"\r\n\r\n") + 4])
    assert len(read_form([form(first, second)], max_files=2).files) == 2


def test_nothing_of_a_file_is_held_back_but_what_may_begin_a_delimiter() -> None:
    content = Content(DELIMITER)
    assert bytes(content.take(b"0123456789")) == b"0123456789"
    assert bytes(content.take(b"ab\r")) == b"ab"
    assert bytes(content.take(b"\r")) == b"\r"
    assert bytes(content.take(DELIMITER[1:])) == b""
    assert not content.is_over
    assert bytes(content.take(b"-")) == b""
    assert bytes(content.take(b"-rest")) == b""
    assert content.chunk[content.stop :] == DELIMITER + b"--rest"


def test_the_content_of_a_file_is_not_copied() -> None:
    chunk = bytes(100_000)
    assert Content(DELIMITER).take(chunk).obj is chunk


def test_the_library_sees_little_at_once_and_no_file() -> None:
    parser = FormParser(BOUNDARY.encode(), max_overhead=max_overhead(1))
    body = field_part("a", b"x" * 60_000) + file_part(b"content")
    position, steps = 0, 0
    while parser.file is None:
        before = position
        position = parser.parse(body, position)
        assert position - before <= 4096
        steps += 1
    assert steps > 10
    assert body[position:] == b"content\r\n"
