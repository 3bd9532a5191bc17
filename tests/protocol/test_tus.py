"""The dialect tus 1.0.0: what each request means, and every field of every answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.test_errors import EXAMPLES, of_class
from tusd_py.errors import (
    BadRequest,
    ChecksumMismatch,
    FinalUpload,
    MethodNotAllowed,
    OffsetMismatch,
    ServerStopping,
    UnsupportedMediaType,
    UnsupportedVersion,
    UploadError,
    UploadExpired,
    UploadLocked,
    UploadNotFound,
    UploadOverrun,
)
from tusd_py.protocol.digests import Checksum
from tusd_py.protocol.fields import Fields, parse_metadata
from tusd_py.protocol.messages import Append, Create, Reply
from tusd_py.protocol.rules import Limits
from tusd_py.protocol.tus import Tus
from tusd_py.upload import Upload

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
EXPIRES = ("Upload-Expires", "Fri, 02 Jan 2026 03:14:05 GMT")
VERSION = ("Tus-Resumable", "1.0.0")
NO_STORE = ("Cache-Control", "no-store")
ALGORITHMS = ("sha1", "md5")

TUS = Tus(Limits(max_size=1000, partial_expiry=timedelta(minutes=10)), ALGORITHMS)
UNLIMITED = Tus(Limits(), ALGORITHMS)

UPLOAD = Upload(id="0123456789abcdef", created_at=NOW, written_at=NOW, length=100, offset=40)
COMPLETE = replace(UPLOAD, offset=100, completed_at=NOW)
APPEND_TYPE = "application/offset+octet-stream"


def fields(**values: str) -> Fields:
    """Return header fields; ``upload_offset="0"`` stands for ``upload-offset: 0``."""
    return Fields([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()])


def twice(name: str, value: str, **others: str) -> Fields:
    lines = [(name.encode(), value.encode())] * 2
    return Fields([*lines, *((n.replace("_", "-").encode(), v.encode()) for n, v in others.items())])


# Version


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PATCH", "DELETE"])
def test_version_1_0_0_is_served(method: str) -> None:
    TUS.check_request(fields(tus_resumable="1.0.0"), method)


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("version", ["", "0.2.2", "1.0", "1.0.1", "2.0.0", "1.0.0,1.0.0", "01.0.0", "v1.0.0", "a\0"])
def test_no_other_version_is_served_for_any_method(version: str, method: str) -> None:
    with pytest.raises(UnsupportedVersion):
        TUS.check_request(fields(tus_resumable=version), method)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_request_that_could_change_something_names_its_version(method: str) -> None:
    with pytest.raises(UnsupportedVersion):
        TUS.check_request(fields(), method)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_request_that_only_looks_need_not_name_a_version(method: str) -> None:
    TUS.check_request(fields(), method)


def test_a_version_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BadRequest):
        TUS.check_request(twice("tus-resumable", "1.0.0"), "PATCH")


# Creation


def test_a_creation_declares_a_length_and_describes_the_upload() -> None:
    create = TUS.parse_create(fields(upload_length="100", upload_metadata="filename YS5tcDM="), 0)
    assert create == Create(length=100, metadata=parse_metadata("filename YS5tcDM="), has_body=False, size=0)


def test_a_creation_may_defer_the_length() -> None:
    assert TUS.parse_create(fields(upload_defer_length="1"), 0) == Create(length=None, size=0)


@pytest.mark.parametrize("size", [10, None])
def test_a_creation_may_carry_first_bytes(size: int | None) -> None:
    create = TUS.parse_create(fields(upload_length="100", content_type=APPEND_TYPE), size)
    assert create == Create(length=100, has_body=True, size=size)


@pytest.mark.parametrize(
    "type", ["application/x-www-form-urlencoded", "application/octet-stream", APPEND_TYPE, "", "nonsense"]
)
def test_without_a_body_the_content_type_of_a_creation_means_nothing(type: str) -> None:
    assert TUS.parse_create(fields(upload_length="100", content_type=type), 0).length == 100


@pytest.mark.parametrize("type", ["application/x-www-form-urlencoded", "application/octet-stream", ""])
@pytest.mark.parametrize("size", [1, None])
def test_a_creation_with_a_body_of_another_type_is_refused(type: str, size: int | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        TUS.parse_create(fields(upload_length="100", content_type=type), size)
    with pytest.raises(UnsupportedMediaType):
        TUS.parse_create(fields(upload_length="100"), size)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (fields(), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(upload_length=""), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(upload_length="-1"), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(upload_length="1_0"), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(upload_length="9" * 19), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(upload_defer_length="0"), "ERR_INVALID_UPLOAD_LENGTH_DEFER"),
        (fields(upload_defer_length="2"), "ERR_INVALID_UPLOAD_LENGTH_DEFER"),
        (fields(upload_defer_length="2", upload_length="10"), "ERR_INVALID_UPLOAD_LENGTH_DEFER"),
        (fields(upload_defer_length="1", upload_length="10"), "ERR_AMBIGUOUS_UPLOAD_LENGTH"),
        (twice("upload-length", "10"), "ERR_DUPLICATE_FIELD"),
        (twice("upload-defer-length", "1"), "ERR_DUPLICATE_FIELD"),
        (fields(upload_length="10", upload_metadata="a ?"), "ERR_INVALID_METADATA"),
        (fields(upload_length="10", upload_checksum="sha1"), "ERR_INVALID_CHECKSUM"),
    ],
)
def test_a_malformed_creation_is_refused(given: Fields, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        TUS.parse_create(given, 0)
    assert caught.value.code == code


@pytest.mark.parametrize("given", [fields(upload_length="1"), fields(upload_length="1", upload_metadata="")])
def test_no_metadata_and_empty_metadata_are_the_same(given: Fields) -> None:
    assert TUS.parse_create(given, 0).metadata.field == ""


def test_metadata_on_two_lines_is_one_list() -> None:
    given = Fields([(b"upload-length", b"1"), (b"upload-metadata", b"a YQ=="), (b"upload-metadata", b"b Yg==")])
    metadata = TUS.parse_create(given, 0).metadata
    assert metadata.field == "a YQ==,b Yg=="
    assert metadata.pairs == (("a", b"a"), ("b", b"b"))


def test_the_body_of_a_creation_may_have_a_checksum() -> None:
    given = fields(upload_length="1", content_type=APPEND_TYPE, upload_checksum="crc32 AAAAAA==")
    assert TUS.parse_create(given, 1).checksum == Checksum("crc32", bytes(4))


# Appends


@pytest.mark.parametrize("size", [0, 10, None])
def test_an_append_says_where_its_bytes_go(size: int | None) -> None:
    append = TUS.parse_append(fields(content_type=APPEND_TYPE, upload_offset="40"), size)
    assert append == Append(offset=40, size=size)


def test_an_append_may_declare_the_length_and_announce_a_checksum() -> None:
    given = fields(content_type=APPEND_TYPE, upload_offset="0", upload_length="100", upload_checksum="crc32 AAAAAA==")
    assert TUS.parse_append(given, 5) == Append(offset=0, length=100, size=5, checksum=Checksum("crc32", bytes(4)))


@pytest.mark.parametrize("size", [0, 10, None])
@pytest.mark.parametrize("type", ["application/octet-stream", "text/plain", "", "application/offset+octet-stream2"])
def test_an_append_of_another_type_is_refused_with_or_without_a_body(type: str, size: int | None) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/offset"):
        TUS.parse_append(fields(content_type=type, upload_offset="0"), size)
    with pytest.raises(UnsupportedMediaType):
        TUS.parse_append(fields(upload_offset="0"), size)


@pytest.mark.parametrize("type", ["Application/Offset+Octet-Stream", "application/offset+octet-stream; charset=x"])
def test_case_and_parameters_of_the_type_do_not_matter(type: str) -> None:
    assert TUS.parse_append(fields(content_type=type, upload_offset="0"), 0).offset == 0


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (fields(content_type=APPEND_TYPE), "ERR_INVALID_OFFSET"),
        (fields(content_type=APPEND_TYPE, upload_offset=""), "ERR_INVALID_OFFSET"),
        (fields(content_type=APPEND_TYPE, upload_offset="-1"), "ERR_INVALID_OFFSET"),
        (fields(content_type=APPEND_TYPE, upload_offset="\xb2"), "ERR_INVALID_OFFSET"),
        (twice("upload-offset", "0", content_type=APPEND_TYPE), "ERR_DUPLICATE_FIELD"),
        (twice("content-type", APPEND_TYPE, upload_offset="0"), "ERR_DUPLICATE_FIELD"),
        (fields(content_type=APPEND_TYPE, upload_offset="0", upload_length="x"), "ERR_INVALID_UPLOAD_LENGTH"),
        (fields(content_type=APPEND_TYPE, upload_offset="0", upload_checksum=""), "ERR_INVALID_CHECKSUM"),
        (twice("upload-checksum", "sha1 YQ==", content_type=APPEND_TYPE, upload_offset="0"), "ERR_DUPLICATE_FIELD"),
    ],
)
def test_a_malformed_append_is_refused(given: Fields, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        TUS.parse_append(given, 5)
    assert caught.value.code == code


# Answers


def test_a_creation_is_answered_with_where_the_upload_lives_and_how_far_it_is() -> None:
    assert TUS.created(UPLOAD, "http://host/files/0123456789abcdef", NOW) == Reply(
        201, (VERSION, ("Location", "http://host/files/0123456789abcdef"), ("Upload-Offset", "40"), EXPIRES)
    )


def test_an_append_is_answered_with_the_new_offset() -> None:
    assert TUS.appended(UPLOAD, "x") == Reply(204, (VERSION, ("Upload-Offset", "40"), EXPIRES))


def test_a_complete_upload_does_not_expire() -> None:
    assert TUS.appended(COMPLETE, "x") == Reply(204, (VERSION, ("Upload-Offset", "100")))
    assert "Upload-Expires" not in dict(TUS.created(COMPLETE, "x", NOW).fields)
    assert "Upload-Expires" not in dict(TUS.status(COMPLETE, NOW).fields)


def test_the_status_tells_offset_and_length_and_is_never_stored() -> None:
    assert TUS.status(UPLOAD, NOW) == Reply(
        200, (VERSION, NO_STORE, ("Upload-Offset", "40"), EXPIRES, ("Upload-Length", "100"))
    )


@pytest.mark.parametrize("offset", [0, 2**31, 2**53 + 1, 10**18 - 1])
def test_large_numbers_are_told_exactly(offset: int) -> None:
    told = dict(UNLIMITED.status(replace(UPLOAD, offset=offset, length=10**18 - 1), NOW).fields)
    assert told["Upload-Offset"] == str(offset)
    assert told["Upload-Length"] == "9" * 18


def test_the_status_of_a_deferred_upload_has_no_length() -> None:
    told = dict(TUS.status(replace(UPLOAD, length=None), NOW).fields)
    assert told["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in told


def test_the_status_repeats_the_metadata_as_they_came() -> None:
    text = "filename YS5tcDM=, empty ,other"
    assert dict(TUS.status(replace(UPLOAD, metadata=parse_metadata(text)), NOW).fields)["Upload-Metadata"] == text
    assert "Upload-Metadata" not in dict(TUS.status(UPLOAD, NOW).fields)


PARTIAL = replace(UPLOAD, concat="partial", is_partial=True)
PENDING = replace(UPLOAD, concat="final;/files/a", members=("0123456789abcdef",), offset=0)


def test_a_partial_is_created_like_any_other_upload() -> None:
    create = TUS.parse_create(fields(upload_concat="partial", upload_length="100"), 0)
    assert create == Create(length=100, size=0, concat="partial", is_partial=True)


def test_a_final_is_created_from_its_list_alone() -> None:
    create = TUS.parse_create(fields(upload_concat="final;/a /b", upload_metadata="filename YS5tcDM="), 0)
    metadata = parse_metadata("filename YS5tcDM=")
    assert create == Create(length=None, metadata=metadata, concat="final;/a /b", final_of=("/a", "/b"))


@pytest.mark.parametrize("field", ["upload_length", "upload_defer_length"])
def test_a_final_with_a_length_is_refused(field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        TUS.parse_create(fields(upload_concat="final;/a", **{field: "1"}), 0)
    assert refused.value.code == "ERR_INVALID_UPLOAD_LENGTH"


@pytest.mark.parametrize("size", [1, None])
def test_a_final_with_a_body_is_refused(size: int | None) -> None:
    with pytest.raises(FinalUpload):
        TUS.parse_create(fields(upload_concat="final;/a"), size)


def test_concatenation_is_refused_where_it_is_switched_off() -> None:
    with pytest.raises(BadRequest) as refused:
        Tus(Limits(), ALGORITHMS, concatenation=False).parse_create(
            fields(upload_concat="partial", upload_length="1"), 0
        )
    assert refused.value.code == "ERR_CONCATENATION_UNSUPPORTED"


def test_a_concatenation_on_two_lines_is_refused() -> None:
    with pytest.raises(BadRequest):
        TUS.parse_create(twice("upload-concat", "partial", upload_length="1"), 0)


def test_the_status_of_a_partial_has_its_offset_and_expires_also_when_it_is_complete() -> None:
    for partial in (PARTIAL, replace(PARTIAL, offset=100, completed_at=NOW)):
        told = dict(TUS.status(partial, NOW).fields)
        assert told["Upload-Concat"] == "partial"
        assert told["Upload-Offset"] == str(partial.offset)
        assert told["Upload-Expires"] == EXPIRES[1]


def test_the_status_of_a_pending_final_has_no_offset_and_no_length_that_is_not_known() -> None:
    told = dict(TUS.status(PENDING, NOW).fields)
    assert told["Upload-Concat"] == "final;/files/a"
    assert told["Upload-Length"] == "100"
    assert "Upload-Expires" not in told
    assert "Upload-Offset" not in told
    deferred = dict(TUS.status(replace(PENDING, length=None), NOW).fields)
    assert "Upload-Length" not in deferred
    assert "Upload-Defer-Length" not in deferred


def test_a_termination_is_answered_with_204() -> None:
    assert TUS.terminated() == Reply(204, (VERSION,))


def test_discovery_announces_what_works() -> None:
    assert TUS.discovered() == Reply(
        204,
        (
            VERSION,
            ("Tus-Version", "1.0.0"),
            (
                "Tus-Extension",
                "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,"
                "concatenation,concatenation-unfinished",
            ),
            ("Tus-Checksum-Algorithm", "sha1,md5"),
            ("Tus-Max-Size", "1000"),
        ),
    )


def test_what_does_not_hold_is_not_announced() -> None:
    told = dict(UNLIMITED.discovered().fields)
    assert "expiration" not in told["Tus-Extension"].split(",")
    assert "Tus-Max-Size" not in told
    assert "Upload-Expires" not in dict(UNLIMITED.appended(UPLOAD, "x").fields)
    assert (
        "concatenation" not in dict(Tus(Limits(), ALGORITHMS, concatenation=False).discovered().fields)["Tus-Extension"]
    )


# Refusals


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_a_refusal_is_one_line_of_text_with_a_code_and_a_sentence(error: UploadError) -> None:
    reply = TUS.refused(error, "PATCH")
    assert reply.status == error.status
    assert reply.body == f"{error.code}: {error}\n".encode()
    assert ("Content-Type", "text/plain; charset=utf-8") in reply.fields


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_every_refusal_names_the_version_and_is_never_stored(error: UploadError) -> None:
    reply = TUS.refused(error, "PATCH")
    assert VERSION in reply.fields
    assert NO_STORE in reply.fields
    assert len({name for name, _ in reply.fields}) == len(reply.fields)


def test_a_version_that_is_not_served_is_answered_with_those_that_are() -> None:
    reply = TUS.refused(UnsupportedVersion(served="1.0.0"), "PATCH")
    assert reply.status == 412
    assert ("Tus-Version", "1.0.0") in reply.fields


@pytest.mark.parametrize("error", [error for error in EXAMPLES if error.status != 412], ids=of_class)
def test_other_refusals_do_not_list_the_versions(error: UploadError) -> None:
    assert "Tus-Version" not in dict(TUS.refused(error, "PATCH").fields)


def test_a_method_that_is_not_served_is_answered_with_those_that_are() -> None:
    reply = TUS.refused(MethodNotAllowed(allowed=("OPTIONS", "POST")), "PATCH")
    assert reply.status == 405
    assert ("Allow", "OPTIONS, POST") in reply.fields


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_a_refusal_says_when_to_come_back_if_that_will_help(error: UploadError) -> None:
    expected = None if error.retry_after is None else str(error.retry_after)
    assert dict(TUS.refused(error, "PATCH").fields).get("Retry-After") == expected


def test_a_busy_upload_is_told_to_be_asked_for_again() -> None:
    assert ("Retry-After", "1") in TUS.refused(UploadLocked(), "PATCH").fields


def test_a_wrong_offset_is_answered_with_the_right_one() -> None:
    assert dict(TUS.refused(OffsetMismatch(expected=40, provided=7), "PATCH").fields)["Upload-Offset"] == "40"


@pytest.mark.parametrize(
    "error",
    [OffsetMismatch(expected=40, provided=7), UploadOverrun(length=100), ChecksumMismatch(), ServerStopping()],
    ids=of_class,
)
def test_a_refused_append_is_told_how_far_the_upload_is_and_when_it_expires(error: UploadError) -> None:
    error.upload = UPLOAD
    reply = TUS.refused(error, "PATCH")
    assert reply.fields.count(("Upload-Offset", "40")) == 1
    assert EXPIRES in reply.fields


@pytest.mark.parametrize("error", [UploadNotFound(), UploadExpired()], ids=of_class)
def test_what_is_not_there_has_no_offset(error: UploadError) -> None:
    assert "Upload-Offset" not in dict(TUS.refused(error, "PATCH").fields)
