"""The draft in its interop versions: what each request means, and every field of every answer."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_errors import EXAMPLES, of_class
from tusd_py import errors
from tusd_py.errors import BadRequest, InconsistentLength, UnsupportedDraft, UnsupportedMediaType, UploadError
from tusd_py.protocol import problems
from tusd_py.protocol.dialects import Dialects
from tusd_py.protocol.digest_fields import parse_digests
from tusd_py.protocol.digests import Checksum
from tusd_py.protocol.fields import Fields, parse_metadata
from tusd_py.protocol.ietf import APPEND_TYPE, Draft, UnknownDraft
from tusd_py.protocol.ietf_versions import VERSIONS
from tusd_py.protocol.messages import Append, Create, Dialect, Reply
from tusd_py.protocol.rules import Limits
from tusd_py.protocol.tus import Tus
from tusd_py.upload import Upload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOCATION = "http://host/files/0123456789abcdef"
LIMITS = Limits(max_size=1000, partial_expiry=timedelta(minutes=10))
SIZES = Limits(max_size=1000, min_size=5, max_append_size=100, min_append_size=10)

UPLOAD = Upload(id="0123456789abcdef", created_at=NOW, written_at=NOW, length=100, offset=40, ends_by_word=True)
WHOLE = replace(UPLOAD, offset=100)
COMPLETE = replace(WHOLE, completed_at=NOW, is_ended=True)

NUMBERS = tuple(version.number for version in VERSIONS)
DIALECTS = Dialects(Tus(LIMITS, ("sha1",)), LIMITS)
NO_STORE = ("Cache-Control", "no-store")


def fields(*lines: tuple[str, str], **values: str) -> Fields:
    """Return header fields; ``upload_offset="0"`` stands for ``upload-offset: 0``."""
    named = ((name.replace("_", "-"), value) for name, value in values.items())
    return Fields([(name.lower().encode(), value.encode("latin-1")) for name, value in (*lines, *named)])


def draft(number: int, limits: Limits = LIMITS, *, put: bool = False) -> Draft:
    return Draft(next(version for version in VERSIONS if version.number == number), limits, put=put)


def flag(number: int, value: bool) -> tuple[str, str]:
    """Return the field by which a client of this version says whether the upload ends."""
    if number == 3:
        return "Upload-Incomplete", f"?{not value:d}"
    return "Upload-Complete", f"?{value:d}"


def problem_of(reply: Reply) -> dict[str, object]:
    assert ("Content-Type", "application/problem+json") in reply.fields
    parsed: dict[str, object] = json.loads(reply.body)
    return parsed


since = {number: [n for n in NUMBERS if n >= number] for number in NUMBERS}
until = {number: [n for n in NUMBERS if n <= number] for number in NUMBERS}
every_version = pytest.mark.parametrize("number", NUMBERS)


# The dialect of a request


@every_version
@pytest.mark.parametrize("written", ["{}", " {} ", "{};x=1", "0{}"])
def test_a_version_that_is_served_has_its_row(number: int, written: str) -> None:
    chosen = DIALECTS.of(fields(upload_draft_interop_version=written.format(number)), "HEAD")
    assert ("Upload-Draft-Interop-Version", str(number)) in chosen.terminated().fields


@pytest.mark.parametrize("written", ["2", "11", "-6", "6.0", "six", "?1", "", '"6"', "6, 6", "9" * 16])
def test_a_version_that_is_unknown_or_malformed_has_none(written: str) -> None:
    assert isinstance(DIALECTS.of(fields(upload_draft_interop_version=written), "POST"), UnknownDraft)


@pytest.mark.parametrize(
    "lines",
    [
        {"upload_complete": "?1"},
        {"upload_complete": "nonsense"},
        {"upload_incomplete": "?0"},
        {"content_type": "Application/Partial-Upload; x=1"},
    ],
)
def test_words_of_the_draft_without_a_version_are_an_unknown_one(lines: dict[str, str]) -> None:
    assert isinstance(DIALECTS.of(fields(**lines), "POST"), UnknownDraft)


def test_the_version_on_two_lines_is_none() -> None:
    twice = fields(("upload-draft-interop-version", "6"), ("upload-draft-interop-version", "6"))
    assert isinstance(DIALECTS.of(twice, "POST"), UnknownDraft)


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"tus_resumable": "1.0.0"},
        {"tus_resumable": "1.0.0", "upload_draft_interop_version": "6", "upload_complete": "?1"},
        {"upload_length": "5"},
        {"content_type": "application/offset+octet-stream"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_everything_else_is_tus(lines: dict[str, str], method: str) -> None:
    assert isinstance(DIALECTS.of(fields(**lines), method), Tus)


def test_the_coming_rfc_has_no_version_and_can_be_switched_on() -> None:
    dialects = Dialects(Tus(LIMITS, ()), LIMITS, without_version=True)
    chosen = dialects.of(fields(upload_complete="?0"), "POST")
    assert chosen.begun(UPLOAD, LOCATION, NOW) == Reply(
        104, (("Location", LOCATION), ("Upload-Limit", "max-size=1000, max-age=600"))
    )
    assert isinstance(dialects.of(fields(upload_complete="nonsense"), "POST"), UnknownDraft)
    for method, is_tus in (("HEAD", False), ("DELETE", False), ("GET", True), ("POST", True), ("PATCH", True)):
        assert isinstance(dialects.of(fields(), method), Tus) is is_tus


def test_options_tell_of_every_dialect() -> None:
    told = dict(DIALECTS.discovered(DIALECTS.of(fields(), "OPTIONS")).fields)
    assert told["Tus-Version"] == "1.0.0"
    assert told["Upload-Limit"] == "max-size=1000, max-age=600"
    assert told["Accept-Patch"] == APPEND_TYPE
    assert "Upload-Draft-Interop-Version" not in told
    asked_by = dict(DIALECTS.discovered(DIALECTS.of(fields(upload_draft_interop_version="6"), "OPTIONS")).fields)
    assert asked_by["Upload-Limit"] == "max-size=1000, expires=600"


# Unknown versions


@pytest.mark.parametrize("lines", [{"upload_complete": "?1"}, {"upload_incomplete": "?0"}])
def test_of_an_unknown_version_a_whole_file_is_an_ordinary_upload(lines: dict[str, str]) -> None:
    dialect = UnknownDraft(LIMITS)
    dialect.check_request(fields(**lines), "POST")
    create = dialect.parse_create(fields(**lines), 7)
    assert (create.length, create.is_last) == (7, True)
    assert not dialect.tells_on_the_way
    answer = dialect.created(COMPLETE, LOCATION, NOW)
    assert answer.status == 201
    assert "Upload-Draft-Interop-Version" not in dict(answer.fields)


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("POST", {"upload_complete": "?0"}),
        ("POST", {"upload_complete": "1"}),
        ("POST", {"content_type": APPEND_TYPE}),
        ("PUT", {"upload_complete": "?1"}),
        ("PATCH", {"upload_complete": "?1"}),
        ("HEAD", {}),
        ("GET", {}),
        ("DELETE", {}),
    ],
)
def test_of_an_unknown_version_everything_else_is_told_which_ones_are_served(
    method: str, lines: dict[str, str]
) -> None:
    with pytest.raises(UnsupportedDraft, match="3, 4, 5, 6, 7, 8, 9, 10"):
        UnknownDraft(LIMITS).check_request(fields(**lines), method)


# Creation


@every_version
def test_a_creation_with_more_to_come_is_held_open(number: int) -> None:
    assert draft(number).parse_create(fields(flag(number, False), upload_length="100"), 0) == Create(
        length=100, has_body=False, size=0, ends_by_word=True
    )


@every_version
def test_a_creation_with_everything_has_the_length_of_its_body(number: int) -> None:
    assert draft(number).parse_create(fields(flag(number, True)), 100) == Create(
        length=100, has_body=True, size=100, is_last=True, ends_by_word=True
    )


@every_version
def test_of_a_chunked_creation_with_everything_the_end_will_tell(number: int) -> None:
    create = draft(number).parse_create(fields(flag(number, True), upload_length="100"), None)
    assert (create.length, create.size, create.is_last) == (100, None, True)
    assert draft(number).parse_create(fields(flag(number, True)), None).length is None


@every_version
def test_a_length_that_the_whole_body_contradicts_is_refused(number: int) -> None:
    with pytest.raises(InconsistentLength):
        draft(number).parse_create(fields(flag(number, True), upload_length="99"), 100)


@pytest.mark.parametrize("number", until[6])
def test_a_creation_without_a_flag_is_the_whole_file_up_to_version_6(number: int) -> None:
    assert draft(number).parse_create(fields(), 5).is_last


@pytest.mark.parametrize("number", since[7])
@pytest.mark.parametrize("lines", [{}, {"upload_complete": "1"}, {"upload_complete": "?1, ?1"}])
def test_a_request_without_a_flag_is_refused_from_version_7_on(number: int, lines: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match=r"send \?1 with the last bytes"):
        draft(number).parse_create(fields(**lines), 5)
    with pytest.raises(BadRequest, match=r"send \?1 with the last bytes"):
        draft(number).parse_append(fields(**lines, upload_offset="0", content_type=APPEND_TYPE), 5)


def test_the_flag_of_version_3_is_the_inverse_and_no_other_counts() -> None:
    assert not draft(3).parse_create(fields(upload_incomplete="?1", upload_complete="?1"), 5).is_last
    assert draft(3).parse_create(fields(upload_incomplete="?0"), 5).is_last
    assert not draft(4).parse_create(fields(upload_incomplete="?0", upload_complete="?0"), 5).is_last


@every_version
@pytest.mark.parametrize("length", ["-1", "1e3", "?1", "100, 100", "9" * 16, ""])
def test_a_malformed_length_is_none(number: int, length: str) -> None:
    assert draft(number).parse_create(fields(flag(number, False), upload_length=length), 0).length is None


def test_name_and_type_come_from_the_fields_of_http() -> None:
    create = draft(6).parse_create(
        fields(
            upload_complete="?1",
            content_type="video/quicktime",
            content_disposition="attachment; filename=\"x.mov\"; filename*=UTF-8''f%C3%BCr%20dich.mov",
            content_encoding="gzip",
        ),
        5,
    )
    assert create.metadata.pairs == (
        ("filename", "für dich.mov".encode()),
        ("filetype", b"video/quicktime"),
        ("contentEncoding", b"gzip"),
    )
    assert parse_metadata(create.metadata.field) == create.metadata


def test_metadata_of_tus_is_kept_as_it_came_and_counts_more() -> None:
    told = "filename YS5tcDM=,empty"
    create = draft(6).parse_create(
        fields(upload_complete="?0", upload_metadata=told, content_disposition="attachment; filename=b.mp3"), 0
    )
    assert create.metadata == parse_metadata(told)
    more = draft(6).parse_create(fields(upload_complete="?0", upload_metadata=told, content_type="audio/mpeg"), 0)
    assert more.metadata.field == told + ",filetype YXVkaW8vbXBlZw=="
    assert parse_metadata(more.metadata.field) == more.metadata


@pytest.mark.parametrize("disposition", ["", ";;;", 'attachment; filename="', "attachment; filename*=UTF-8''%ff"])
def test_a_malformed_name_is_no_name(disposition: str) -> None:
    create = draft(6).parse_create(fields(upload_complete="?1", content_disposition=disposition), 5)
    assert create.metadata.filename == ""


def test_the_type_of_an_append_on_a_creation_is_no_type_of_the_file() -> None:
    create = draft(6).parse_create(fields(upload_complete="?0", content_type=APPEND_TYPE), 5)
    assert create.metadata.pairs == ()


@pytest.mark.parametrize("number", [5, 6])
def test_tus_js_client_never_says_that_a_file_in_pieces_ends(number: int) -> None:
    """Its upload is known by metadata and a length, and ends where its length does."""
    told = fields(upload_complete="?0", upload_length="100", upload_metadata="filename YS5tcDM=")
    assert not draft(number).parse_create(told, 0).ends_by_word
    deferred = fields(upload_complete="?0", upload_defer_length="1", upload_metadata="filename YS5tcDM=")
    assert draft(number).parse_create(deferred, 0).ends_by_word


@pytest.mark.parametrize("number", [3, 4, *since[7]])
def test_in_versions_that_it_does_not_speak_metadata_changes_nothing(number: int) -> None:
    told = fields(flag(number, False), upload_length="100", upload_metadata="filename YS5tcDM=")
    assert draft(number).parse_create(told, 0).ends_by_word


@every_version
def test_digests_are_read_in_every_version(number: int) -> None:
    digest = Checksum("sha256", hashlib.sha256(b"hello").digest())
    written = f"sha-256=:{b64encode(digest.digest).decode()}:"
    told = fields(
        flag(number, True), content_type=APPEND_TYPE, upload_offset="0", content_digest=written, repr_digest=written
    )
    for message in (draft(number).parse_create(told, 5), draft(number).parse_append(told, 5)):
        assert message.content_digests == (digest,)
        assert parse_digests(message.repr_digest) == (digest,)


@every_version
def test_put_creates_where_it_is_switched_on(number: int) -> None:
    assert draft(number).creation_methods == ("POST",)
    assert draft(number, put=True).creation_methods == ("POST", "PUT")


# Append


@every_version
def test_an_append_with_more_to_come_holds_the_upload_open(number: int) -> None:
    lines = fields(flag(number, False), content_type=APPEND_TYPE, upload_offset="40")
    assert draft(number).parse_append(lines, 60) == Append(
        offset=40, size=60, holds_open=True, may_repeat=False, removes_overrun=number >= 7
    )


@every_version
def test_the_last_append_says_so(number: int) -> None:
    lines = fields(flag(number, True), content_type=APPEND_TYPE, upload_offset="40")
    assert draft(number).parse_append(lines, 60) == Append(
        offset=40, size=60, is_last=True, may_repeat=number >= 9, removes_overrun=number >= 7
    )


@every_version
def test_an_append_may_declare_the_length(number: int) -> None:
    lines = fields(flag(number, False), content_type=APPEND_TYPE, upload_offset="40", upload_length="101")
    assert draft(number).parse_append(lines, 60).length == 101


@pytest.mark.parametrize("number", until[5])
@pytest.mark.parametrize("content_type", ["", "application/offset+octet-stream", "video/mp4"])
def test_an_append_may_have_any_type_up_to_version_5(number: int, content_type: str) -> None:
    lines = fields(flag(number, True), content_type=content_type, upload_offset="40")
    assert draft(number).parse_append(lines, 60).offset == 40


@pytest.mark.parametrize("number", since[6])
@pytest.mark.parametrize("content_type", ["", "application/offset+octet-stream", "video/mp4", "application/partial"])
def test_an_append_of_another_type_is_refused_from_version_6_on(number: int, content_type: str) -> None:
    lines = fields(flag(number, True), content_type=content_type, upload_offset="40")
    with pytest.raises(UnsupportedMediaType, match=APPEND_TYPE):
        draft(number).parse_append(lines, 60)


@every_version
@pytest.mark.parametrize("offset", [None, "", "-1", "4.0", "?1", "0x1", "+4", "4, 4", "9" * 16, "٤"])
def test_an_append_without_a_valid_offset_is_refused(number: int, offset: str | None) -> None:
    told = [] if offset is None else [("upload-offset", offset.encode().decode("latin-1"))]
    lines = fields(flag(number, True), *told, content_type=APPEND_TYPE)
    with pytest.raises(BadRequest, match="send the offset that HEAD gives"):
        draft(number).parse_append(lines, 60)


@pytest.mark.parametrize("number", until[6])
def test_an_append_without_a_flag_is_the_last_one_up_to_version_6(number: int) -> None:
    lines = fields(content_type=APPEND_TYPE, upload_offset="40", upload_length="40")
    append = draft(number).parse_append(lines, 0)
    assert (append.length, append.is_last) == (40, True)


# Limits of single requests


@pytest.mark.parametrize("number", since[6])
def test_the_sizes_of_appends_bind_who_is_told_of_them(number: int) -> None:
    lines = fields(("Upload-Complete", "?0"), content_type=APPEND_TYPE, upload_offset="0")
    append = draft(number, SIZES).parse_append(lines, 60)
    assert (append.most, append.least) == (100, 10)


@pytest.mark.parametrize("number", until[5])
def test_who_cannot_be_told_of_the_sizes_of_appends_is_not_bound(number: int) -> None:
    append = draft(number, SIZES).parse_append(fields(flag(number, False), upload_offset="0"), 5)
    assert (append.most, append.least) == (None, 0)


@every_version
def test_the_sizes_of_appends_bind_creations_from_version_9_on(number: int) -> None:
    dialect = draft(number, SIZES)
    with_more = dialect.parse_create(fields(flag(number, False)), 60)
    assert (with_more.most, with_more.least) == ((100, 10) if number >= 9 else (None, 0))
    for lines, size in ((flag(number, False), 0), (flag(number, True), 5)):
        assert dialect.parse_create(fields(lines), size).least == 0


@pytest.mark.parametrize("number", since[6])
def test_the_last_append_may_be_small(number: int) -> None:
    lines = fields(("Upload-Complete", "?1"), content_type=APPEND_TYPE, upload_offset="0")
    assert draft(number, SIZES).parse_append(lines, 1).least == 0


# Stray fields


@pytest.mark.parametrize("number", until[6])
@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
@pytest.mark.parametrize("name", ["upload-offset", "upload-complete", "upload-incomplete"])
def test_stray_fields_are_refused_up_to_version_6(number: int, method: str, name: str) -> None:
    with pytest.raises(BadRequest, match=f"{method} must not have {name}"):
        draft(number).check_request(fields((name, "?1")), method)


def test_a_stray_length_is_refused_in_version_6_alone() -> None:
    with pytest.raises(BadRequest, match="upload-length"):
        draft(6).check_request(fields(upload_length="5"), "HEAD")
    for number in (3, 4, 5, 7, 8, 9, 10):
        draft(number).check_request(fields(upload_length="5"), "HEAD")


@pytest.mark.parametrize("number", since[7])
@pytest.mark.parametrize("method", ["HEAD", "DELETE", "GET"])
def test_stray_fields_are_overlooked_from_version_7_on(number: int, method: str) -> None:
    draft(number).check_request(fields(upload_offset="0", upload_complete="?1"), method)


# Answers on the way


@every_version
def test_a_new_upload_is_told_with_its_place_before_its_body_is_read(number: int) -> None:
    reply = draft(number).begun(UPLOAD, LOCATION, NOW + timedelta(seconds=1))
    assert reply is not None
    assert reply.status == 104
    assert reply.fields[:2] == (("Upload-Draft-Interop-Version", str(number)), ("Location", LOCATION))
    assert reply.fields[2:] == (
        () if number < 6 else (("Upload-Limit", f"max-size=1000, {'expires' if number == 6 else 'max-age'}=599"),)
    )


@every_version
def test_progress_is_an_offset_and_nothing_else_from_version_5_on(number: int) -> None:
    expected = Reply(104, (("Upload-Draft-Interop-Version", str(number)), ("Upload-Offset", "40")))
    assert draft(number).progressed(40) == (expected if number >= 5 else None)


# Final answers


@every_version
def test_a_creation_with_more_to_come_is_answered_with_its_place(number: int) -> None:
    reply = draft(number).created(UPLOAD, LOCATION, NOW)
    assert reply.status == 201
    told = dict(reply.fields)
    assert told["Location"] == LOCATION
    assert told["Upload-Offset"] == "40"
    assert flag(number, False) in reply.fields
    assert ("Upload-Limit" in told) is (number >= 6)


@every_version
def test_an_append_with_more_to_come_is_answered_with_its_offset(number: int) -> None:
    reply = draft(number).appended(UPLOAD, LOCATION)
    assert reply.status == (201 if number <= 6 else 204)
    assert "Location" not in dict(reply.fields)
    assert ("Upload-Offset", "40") in reply.fields
    assert flag(number, False) in reply.fields


@every_version
def test_an_upload_that_has_all_bytes_is_not_complete_for_that(number: int) -> None:
    assert flag(number, False) in draft(number).appended(WHOLE, LOCATION).fields
    assert flag(number, False) in draft(number).status(WHOLE, NOW).fields


@every_version
def test_the_final_answer_is_the_same_for_one_request_and_for_many(number: int) -> None:
    dialect = draft(number)
    final = dialect.created(COMPLETE, LOCATION, NOW)
    assert final == dialect.appended(COMPLETE, LOCATION) == dialect.created(COMPLETE, LOCATION, NOW + timedelta(days=1))
    assert final.status == 201
    assert final.fields == (
        ("Upload-Draft-Interop-Version", str(number)),
        ("Location", LOCATION),
        ("Upload-Offset", "100"),
        flag(number, True),
    )


@every_version
def test_an_offset_is_told_with_everything_that_some_version_asks_for(number: int) -> None:
    for upload, is_complete in ((UPLOAD, False), (COMPLETE, True)):
        reply = draft(number).status(upload, NOW)
        assert reply.status == 204
        assert NO_STORE in reply.fields
        assert ("Upload-Offset", str(upload.offset)) in reply.fields
        assert ("Upload-Length", "100") in reply.fields
        assert flag(number, is_complete) in reply.fields
        assert ("Upload-Limit" in dict(reply.fields)) is (number >= 6)


@every_version
def test_an_unknown_length_is_not_told(number: int) -> None:
    assert "Upload-Length" not in dict(draft(number).status(replace(UPLOAD, length=None), NOW).fields)


@every_version
def test_a_length_of_tus_that_no_integer_of_the_draft_can_say_is_not_told(number: int) -> None:
    assert "Upload-Length" not in dict(draft(number).status(replace(UPLOAD, length=10**17), NOW).fields)


@every_version
def test_get_asks_for_the_offset_from_version_9_on(number: int) -> None:
    assert draft(number).retrieval_methods == (("HEAD", "GET") if number >= 9 else ("HEAD",))


@every_version
def test_a_download_carries_what_an_offset_retrieval_looks_for(number: int) -> None:
    reply = draft(number).downloaded(COMPLETE, Reply(200, (("ETag", '"x"'),), b""))
    assert reply.status == 200
    assert {("ETag", '"x"'), ("Upload-Offset", "100"), ("Upload-Length", "100"), flag(number, True)} <= set(
        reply.fields
    )


@every_version
def test_termination_is_204(number: int) -> None:
    assert draft(number).terminated().status == 204


# Limits


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(), "min-size=0"),
        (Limits(max_size=5 * 1024**3), "max-size=5368709120"),
        (SIZES, "max-size=1000, min-size=5, max-append-size=100, min-append-size=10"),
        (Limits(partial_expiry=timedelta(seconds=90.7)), "max-age=90"),
        (Limits(partial_expiry=timedelta(seconds=90), partial_lifetime=timedelta(seconds=60)), "max-age=60"),
        (Limits(partial_lifetime=timedelta(seconds=60)), "max-age=60"),
        (Limits(max_size=10**18), "max-size=999999999999999"),
    ],
)
def test_limits_are_told_as_they_are(limits: Limits, told: str) -> None:
    assert ("Upload-Limit", told) in draft(8, limits).discovered().fields


@pytest.mark.parametrize(("seconds", "left"), [(0, 600), (0.5, 599), (599, 1), (600, 0), (700, 0)])
def test_the_time_that_is_left_counts_down(seconds: float, left: int) -> None:
    reply = draft(8).status(UPLOAD, NOW + timedelta(seconds=seconds))
    assert ("Upload-Limit", f"max-size=1000, max-age={left}") in reply.fields


def test_a_finished_upload_stays() -> None:
    assert ("Upload-Limit", "max-size=1000") in draft(8).status(COMPLETE, NOW).fields


def test_limits_are_told_with_every_refusal_for_one() -> None:
    refusals: tuple[UploadError, ...] = (
        errors.UploadTooLarge(maximum=1000),
        errors.AppendTooLarge(maximum=100),
        errors.AppendTooSmall(minimum=10),
        errors.UploadTooSmall(minimum=5),
    )
    for error in refusals:
        for number in since[6]:
            assert "Upload-Limit" in dict(draft(number, SIZES).refused(error, "PATCH").fields)


# Refusals


@every_version
@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD", "DELETE", ""])
def test_every_refusal_is_a_problem_that_is_never_stored(number: int, error: UploadError, method: str) -> None:
    reply = draft(number).refused(error, method)
    problem = problem_of(reply)
    assert problem["status"] == reply.status
    assert problem["detail"] == str(error)
    assert problem["code"] == error.code
    assert NO_STORE in reply.fields
    assert ("Upload-Draft-Interop-Version", str(number)) in reply.fields
    assert reply.status not in (301, 302, 303, 460)


@every_version
def test_a_wrong_offset_is_told_the_right_one(number: int) -> None:
    error = errors.OffsetMismatch(expected=40, provided=7)
    error.upload = UPLOAD
    reply = draft(number).refused(error, "PATCH")
    assert reply.status == 409
    assert ("Upload-Offset", "40") in reply.fields
    assert flag(number, False) in reply.fields
    problem = problem_of(reply)
    if number >= 6:
        assert problem["type"] == problems.MISMATCHING_OFFSET
        assert (problem["expected-offset"], problem["provided-offset"]) == (40, 7)
    else:
        assert "type" not in problem


@every_version
def test_of_a_finished_upload_the_flag_says_so_up_to_version_6_and_who_refuses_from_7_on(number: int) -> None:
    error = errors.OffsetMismatch(expected=100, provided=7)
    error.upload = COMPLETE
    assert flag(number, number <= 6) in draft(number).refused(error, "PATCH").fields


@every_version
@pytest.mark.parametrize(
    "error",
    [
        errors.ContentRefused(extension=".mp3", allowed=(".mp3",)),
        errors.ExtensionRefused(extension=".exe", allowed=(".mp3",)),
        errors.WrongRepresentation(),
    ],
    ids=of_class,
)
def test_what_the_application_refuses_is_not_to_be_tried_again(number: int, error: UploadError) -> None:
    assert flag(number, number >= 7) in draft(number).refused(error, "POST").fields


@every_version
@pytest.mark.parametrize(
    "error",
    [
        errors.UploadTooLarge(maximum=5),
        errors.UploadLocked(),
        errors.ServerStopping(),
        errors.StorageFailed(),
        errors.DigestMismatch(),
        errors.UnsupportedMediaType(expected=APPEND_TYPE),
    ],
    ids=of_class,
)
def test_what_the_protocol_refuses_may_be_tried_again(number: int, error: UploadError) -> None:
    assert flag(number, False) in draft(number).refused(error, "PATCH").fields


@every_version
@pytest.mark.parametrize("error", [errors.InconsistentLength("x"), errors.UploadOverrun(length=5)], ids=of_class)
def test_lengths_that_contradict_each_other_are_a_problem_of_their_own_from_version_7_on(
    number: int, error: UploadError
) -> None:
    reply = draft(number).refused(error, "PATCH")
    assert reply.status == 400
    assert problem_of(reply).get("type") == (problems.INCONSISTENT_LENGTH if number >= 7 else None)


@every_version
@pytest.mark.parametrize("has_bytes", [True, False])
def test_an_append_to_a_finished_upload_is_refused_in_the_words_of_its_version(number: int, has_bytes: bool) -> None:
    error = errors.CompletedUpload(has_bytes=has_bytes)
    error.upload = COMPLETE
    reply = draft(number).refused(error, "PATCH")
    types = {8: problems.INCONSISTENT_LENGTH if has_bytes else None, 9: None, 10: None}
    assert reply.status == (410 if number == 8 and not has_bytes else 400)
    assert problem_of(reply).get("type") == types.get(number, problems.COMPLETED_UPLOAD)
    assert ("Upload-Offset", "100") in reply.fields


@every_version
def test_a_refused_creation_tells_that_nothing_was_stored(number: int) -> None:
    reply = draft(number).refused(errors.UploadTooLarge(maximum=1000), "POST")
    assert ("Upload-Offset", "0") in reply.fields
    assert "Upload-Offset" not in dict(draft(number).refused(errors.StorageFull(), "POST").fields)


@every_version
def test_a_refused_retrieval_names_no_offset(number: int) -> None:
    told = dict(draft(number).refused(errors.UploadNotFound(), "HEAD").fields)
    assert not {"Upload-Offset", "Upload-Complete", "Upload-Incomplete"} & told.keys()


def test_a_refusal_says_what_its_status_asks_for() -> None:
    assert ("Allow", "POST") in draft(6).refused(errors.MethodNotAllowed(allowed=("POST",)), "PUT").fields
    assert ("Retry-After", "1") in draft(6).refused(errors.UploadLocked(), "HEAD").fields
    assert ("Content-Range", "bytes */10") in draft(6).refused(errors.RangeNotSatisfiable(length=10), "GET").fields


# Hostile


@given(
    st.sampled_from(DIALECTS.all),
    st.dictionaries(
        st.sampled_from(
            [
                "upload-complete",
                "upload-incomplete",
                "upload-offset",
                "upload-length",
                "content-type",
                "content-disposition",
                "content-digest",
                "repr-digest",
                "content-encoding",
            ]
        ),
        st.text(st.characters(max_codepoint=255), max_size=40) | st.sampled_from(["?1", "?0", "5", APPEND_TYPE]),
    ),
    st.none() | st.integers(0, 2**70),
)
def test_whatever_comes_is_a_message_or_a_refusal(dialect: Dialect, lines: dict[str, str], size: int | None) -> None:
    request = Fields([(name.encode(), value.encode("latin-1")) for name, value in lines.items()])
    DIALECTS.of(request, "POST")
    statuses = set()
    for parse in (dialect.parse_create, dialect.parse_append):
        try:
            parse(request, size)
        except UploadError as error:
            statuses.add(dialect.refused(error, "PATCH").status)
    assert statuses <= {400, 415}
