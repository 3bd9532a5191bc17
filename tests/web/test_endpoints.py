"""What each method answers, one request at a time, over a real connection."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Answer, Server


def files_in(folder: Path) -> list[Path]:
    """Everything that is kept, of whatever kind."""
    return [path for path in folder.rglob("*") if path.is_file()]


def sha1(data: bytes) -> str:
    return f"Upload-Checksum: sha1 {b64encode(hashlib.sha1(data).digest()).decode()}\r\n"


def test_options_tells_what_the_server_can_do(server: Server) -> None:
    answer = server.ask("OPTIONS", "/files/")
    assert answer.status == 204
    assert answer.fields["tus-version"] == "1.0.0"
    assert answer.fields["tus-max-size"] == "1000"
    assert answer.fields["tus-extension"] == (
        "creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,"
        "concatenation,concatenation-unfinished"
    )
    assert answer.fields["tus-checksum-algorithm"].startswith("sha1,md5,sha256,sha512,crc32")
    assert "content-length" not in answer.fields
    assert "transfer-encoding" not in answer.fields


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/unknown-but-well-formed-id"])
def test_options_ignores_the_version(server: Server, path: str) -> None:
    assert server.ask("OPTIONS", path, "Tus-Resumable: 9.9.9\r\n").status == 204


def test_a_question_about_the_server_is_answered_as_one_about_the_collection(server: Server) -> None:
    """RFC 9110, 9.3.7: the target is an asterisk."""
    answer = server.ask("OPTIONS", "*")
    assert (answer.status, answer.fields["tus-version"]) == (204, "1.0.0")
    assert server.ask("HEAD", "*", TUS).status in (400, 405)


def test_creation_gives_an_absolute_location(server: Server) -> None:
    answer = server.ask("POST", "/files/", TUS + "Upload-Length: 10\r\n", b"")
    assert answer.status == 201
    assert answer.fields["location"].startswith(f"http://127.0.0.1:{server.port}/files/")
    assert answer.fields["upload-offset"] == "0"
    assert answer.fields["tus-resumable"] == "1.0.0"
    assert parsedate_to_datetime(answer.fields["upload-expires"])


@pytest.mark.parametrize("path", ["/files", "/files/"])
def test_both_forms_of_the_collection_are_served_without_a_redirect(server: Server, path: str) -> None:
    assert server.ask("POST", path, TUS + "Upload-Length: 10\r\n", b"").status == 201


def test_both_forms_of_an_upload_are_the_same_upload(server: Server) -> None:
    path = server.create()
    server.append(path + "/", 0, b"12345")
    assert server.offset(path) == server.offset(path + "/") == 5


def test_an_upload_goes_on_where_it_broke(server: Server, folder: Path) -> None:
    path = server.create("Upload-Metadata: filename aGVsbG8ubXAz\r\n")
    assert server.append(path, 0, b"01234").fields["upload-offset"] == "5"
    answer = server.append(path, 5, b"56789")
    assert answer.status == 204
    assert answer.fields["upload-offset"] == "10"
    assert "upload-expires" not in answer.fields
    id = path.rpartition("/")[2]
    assert (folder / f"{id}.mp3").read_bytes() == b"0123456789"


def test_head_tells_all_that_is_known(server: Server) -> None:
    metadata = "filename aGVsbG8ubXAz,empty,Key AAA="
    path = server.create(f"Upload-Metadata: {metadata}\r\n")
    answer = server.ask("HEAD", path, TUS)
    assert answer.status == 200
    assert answer.fields["upload-offset"] == "0"
    assert answer.fields["upload-length"] == "10"
    assert answer.fields["upload-metadata"] == metadata
    assert answer.fields["cache-control"] == "no-store"
    assert "upload-expires" in answer.fields
    assert "upload-defer-length" not in answer.fields


def test_head_of_a_finished_upload_still_tells_its_metadata(server: Server) -> None:
    path = server.create("Upload-Metadata: a YQ==\r\n", length=2)
    server.append(path, 0, b"ab")
    answer = server.ask("HEAD", path, TUS)
    assert (answer.fields["upload-offset"], answer.fields["upload-metadata"]) == ("2", "a YQ==")
    assert "upload-expires" not in answer.fields


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_reading_needs_no_version(server: Server, method: str) -> None:
    path = server.create(length=0)
    assert server.ask(method, path).status == 200


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("version", ["0.2.2", "1.0", "2.0.0", "x", ""])
def test_a_foreign_version_is_refused_on_every_method(server: Server, method: str, version: str) -> None:
    answer = server.ask(method, server.create(), f"Tus-Resumable: {version}\r\n")
    assert answer.status == 412
    assert answer.fields["tus-version"] == "1.0.0"
    assert answer.fields["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_missing_version_is_refused_where_something_could_change(server: Server, method: str) -> None:
    path = "/files/" if method == "POST" else server.create()
    assert server.ask(method, path, "Upload-Length: 1\r\n").status == 412


def test_an_empty_upload_is_complete_at_once(server: Server, folder: Path) -> None:
    path = server.create(length=0)
    assert (folder / f"{path.rpartition('/')[2]}.bin").read_bytes() == b""


def test_creation_takes_the_first_bytes(server: Server) -> None:
    answer = server.ask("POST", "/files/", APPEND + "Upload-Length: 10\r\n", b"01234")
    assert (answer.status, answer.fields["upload-offset"]) == (201, "5")
    path = "/" + answer.fields["location"].split("/", 3)[3]
    assert server.append(path, 5, b"56789").status == 204
    assert server.ask("GET", path).body == b"0123456789"


def test_creation_takes_the_whole_upload(server: Server) -> None:
    answer = server.ask("POST", "/files/", APPEND + "Upload-Length: 5\r\n", b"01234")
    assert (answer.status, answer.fields["upload-offset"]) == (201, "5")
    assert "upload-expires" not in answer.fields


def test_creation_takes_a_chunked_body(server: Server) -> None:
    fields = APPEND + "Upload-Defer-Length: 1\r\nTransfer-Encoding: chunked\r\nHost: x\r\n"
    with server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\n{fields}\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        answer = connection.answer()
    assert (answer.status, answer.fields["upload-offset"]) == (201, "5")


def test_a_form_type_on_an_empty_creation_does_no_harm(server: Server) -> None:
    fields = TUS + "Upload-Length: 5\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    assert server.ask("POST", "/files/", fields, b"").status == 201


def test_a_deferred_length_is_told_until_it_is_declared(server: Server) -> None:
    path = server.create("Upload-Defer-Length: 1\r\n", length=None)
    answer = server.ask("HEAD", path, TUS)
    assert answer.fields["upload-defer-length"] == "1"
    assert "upload-length" not in answer.fields
    assert server.append(path, 0, b"abc").status == 204
    answer = server.append(path, 3, b"de", "Upload-Length: 5\r\n")
    assert (answer.status, answer.fields["upload-offset"]) == (204, "5")
    answer = server.ask("HEAD", path, TUS)
    assert answer.fields["upload-length"] == "5"
    assert "upload-defer-length" not in answer.fields


def test_a_length_may_be_declared_without_bytes(server: Server) -> None:
    path = server.create("Upload-Defer-Length: 1\r\n", length=None)
    server.append(path, 0, b"abc")
    answer = server.append(path, 3, b"", "Upload-Length: 3\r\n")
    assert answer.status == 204
    assert server.ask("GET", path).body == b"abc"


@pytest.mark.parametrize(
    ("declared", "status"), [("4", 204), ("5", 400), ("2", 400), ("1001", 400), ("-1", 400), ("x", 400), ("", 400)]
)
def test_a_known_length_may_be_repeated_but_not_changed(server: Server, declared: str, status: int) -> None:
    path = server.create(length=4)
    assert server.append(path, 0, b"ab", f"Upload-Length: {declared}\r\n").status == status
    assert server.ask("HEAD", path, TUS).fields["upload-length"] == "4"


@pytest.mark.parametrize(
    ("declared", "body", "status"),
    [("2", b"", 400), ("1001", b"", 413), ("5", b"abc", 413), ("9" * 19, b"", 400)],
)
def test_a_bad_declaration_leaves_the_length_deferred(server: Server, declared: str, body: bytes, status: int) -> None:
    path = server.create("Upload-Defer-Length: 1\r\n", length=None)
    server.append(path, 0, b"abc")
    assert server.append(path, 3, body, f"Upload-Length: {declared}\r\n").status == status
    answer = server.ask("HEAD", path, TUS)
    assert (answer.fields["upload-defer-length"], answer.fields["upload-offset"]) == ("1", "3")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ("", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: 1\r\nUpload-Defer-Length: 1\r\n", 400, "ERR_AMBIGUOUS_UPLOAD_LENGTH"),
        ("Upload-Defer-Length: 2\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH_DEFER"),
        ("Upload-Length: -1\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: +1\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: 1.5\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: 1_0\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: \r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: \xb2\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        (f"Upload-Length: {'9' * 300}\r\n", 400, "ERR_INVALID_UPLOAD_LENGTH"),
        ("Upload-Length: 1\r\nUpload-Length: 2\r\n", 400, "ERR_DUPLICATE_FIELD"),
        ("Upload-Length: 1001\r\n", 413, "ERR_MAX_SIZE_EXCEEDED"),
        ("Upload-Length: 1\r\nUpload-Metadata: a b c\r\n", 400, "ERR_INVALID_METADATA"),
        ("Upload-Length: 1\r\nUpload-Metadata: a !!!\r\n", 400, "ERR_INVALID_METADATA"),
        ("Upload-Length: 1\r\nUpload-Metadata: a YQ==,,b YQ==\r\n", 400, "ERR_INVALID_METADATA"),
        ("Upload-Length: 1\r\nUpload-Metadata: a YQ==,a YQ==\r\n", 400, "ERR_INVALID_METADATA"),
        ("Upload-Length: 1\r\nUpload-Metadata: \xfc YQ==\r\n", 400, "ERR_INVALID_METADATA"),
        ("Upload-Length: 1\r\nX-HTTP-Method-Override: \r\n", 400, "ERR_INVALID_METHOD"),
        ("Upload-Length: 1\r\nX-HTTP-Method-Override: PATCH\r\n", 405, "ERR_METHOD_NOT_ALLOWED"),
        ("Upload-Length: 1\r\nX-HTTP-Method-Override: post\r\n", 405, "ERR_METHOD_NOT_ALLOWED"),
    ],
)
def test_a_malformed_creation_makes_nothing(server: Server, folder: Path, fields: str, status: int, code: str) -> None:
    answer = server.ask("POST", "/files/", TUS + fields, b"")
    assert (answer.status, answer.text.partition(":")[0]) == (status, code)
    assert answer.text.count("\n") == 1
    assert files_in(folder) == []


def test_metadata_on_two_lines_is_one_list(server: Server) -> None:
    path = server.create("Upload-Metadata: a YQ==\r\nUpload-Metadata: b Yg==\r\n")
    assert server.ask("HEAD", path, TUS).fields["upload-metadata"] == "a YQ==,b Yg=="


def test_an_empty_metadata_field_means_none(server: Server) -> None:
    path = server.create("Upload-Metadata: \r\n")
    assert "upload-metadata" not in server.ask("HEAD", path, TUS).fields


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        (TUS + "Upload-Offset: 0\r\n", b"a", 415),
        (TUS + "Upload-Offset: 0\r\nContent-Type: text/plain\r\n", b"a", 415),
        (APPEND, b"a", 400),
        (APPEND + "Upload-Offset: -1\r\n", b"a", 400),
        (APPEND + "Upload-Offset: +0\r\n", b"a", 400),
        (APPEND + "Upload-Offset: \r\n", b"a", 400),
        (APPEND + "Upload-Offset: 0x3\r\n", b"a", 400),
        (APPEND + f"Upload-Offset: {'1' * 40}\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\nUpload-Offset: 3\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 0\r\n", b"a", 409),
        (APPEND + "Upload-Offset: 4\r\n", b"a", 409),
        (APPEND + "Upload-Offset: 3\r\n", b"12345678", 413),
        (APPEND + "Upload-Offset: 3\r\nUpload-Checksum: md4 AAAA\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\nUpload-Checksum: SHA1 AAAA\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\nUpload-Checksum: sha1\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\nUpload-Checksum: sha1 ?\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\nUpload-Checksum: sha1 AAAA\r\n", b"a", 400),
        (APPEND + "Upload-Offset: 3\r\n" + sha1(b"b"), b"a", 460),
    ],
)
def test_a_refused_append_changes_nothing(server: Server, fields: str, body: bytes, status: int) -> None:
    path = server.create()
    server.append(path, 0, b"abc")
    before = server.ask("HEAD", path, TUS).fields
    assert server.ask("PATCH", path, fields, body).status == status
    after = server.ask("HEAD", path, TUS).fields
    of_each_answer = {"date", "x-request-id"}
    assert {n: after[n] for n in after.keys() - of_each_answer} == {
        n: before[n] for n in before.keys() - of_each_answer
    }


def test_a_conflict_tells_the_true_offset(server: Server) -> None:
    path = server.create()
    server.append(path, 0, b"abc")
    answer = server.append(path, 1, b"x")
    assert (answer.status, answer.fields["upload-offset"]) == (409, "3")
    assert "upload-expires" in answer.fields


def test_the_content_type_of_an_append_has_no_case_and_may_have_parameters(server: Server) -> None:
    path = server.create()
    fields = TUS + "Content-Type: Application/Offset+Octet-Stream; x=y\r\nUpload-Offset: 0\r\n"
    assert server.ask("PATCH", path, fields, b"a").status == 204


def test_an_empty_append_at_the_right_offset_is_fine(server: Server) -> None:
    path = server.create()
    assert server.append(path, 0, b"").status == 204


@pytest.mark.parametrize(("body", "status"), [(b"", 204), (b"x", 413)])
def test_an_append_to_a_finished_upload_may_only_be_empty(server: Server, body: bytes, status: int) -> None:
    path = server.create(length=2)
    server.append(path, 0, b"ab")
    assert server.append(path, 2, body).status == status
    assert server.ask("GET", path).body == b"ab"


def test_a_right_checksum_counts_and_a_wrong_one_drops_the_bytes(server: Server) -> None:
    path = server.create(length=4)
    assert server.append(path, 0, b"ab", sha1(b"ab")).fields["upload-offset"] == "2"
    answer = server.append(path, 2, b"cd", sha1(b"xx"))
    assert (answer.status, answer.fields["upload-offset"]) == (460, "2")
    assert server.append(path, 2, b"cd", sha1(b"cd")).status == 204
    assert server.ask("GET", path).body == b"abcd"


def test_an_empty_body_has_a_checksum_too(server: Server) -> None:
    path = server.create()
    assert server.append(path, 0, b"", sha1(b"")).status == 204
    assert server.append(path, 0, b"", sha1(b"x")).status == 460


def test_a_creation_with_a_wrong_checksum_leaves_nothing(server: Server, folder: Path) -> None:
    answer = server.ask("POST", "/files/", APPEND + "Upload-Length: 4\r\n" + sha1(b"x"), b"ab")
    assert answer.status == 460
    assert files_in(folder) == []


def test_a_length_declared_with_a_wrong_checksum_does_not_count(server: Server) -> None:
    path = server.create("Upload-Defer-Length: 1\r\n", length=None)
    assert server.append(path, 0, b"ab", "Upload-Length: 2\r\n" + sha1(b"x")).status == 460
    assert server.ask("HEAD", path, TUS).fields["upload-defer-length"] == "1"
    assert server.append(path, 0, b"ab", "Upload-Length: 2\r\n" + sha1(b"ab")).status == 204
    assert server.ask("GET", path).body == b"ab"


@pytest.mark.parametrize("length", [0, 2, 10])
def test_termination_frees_an_upload_at_any_stage(server: Server, folder: Path, length: int) -> None:
    path = server.create(length=length)
    if length:
        server.append(path, 0, b"ab")
    assert server.ask("DELETE", path, TUS).status == 204
    assert server.ask("HEAD", path, TUS).status == 404
    assert server.ask("DELETE", path, TUS).status == 404
    assert files_in(folder) == []


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
def test_an_unknown_upload_is_not_found(server: Server, method: str) -> None:
    answer = server.ask(method, "/files/0123456789abcdef0123456789abcdef", APPEND + "Upload-Offset: 0\r\n")
    assert answer.status == 404
    assert "upload-offset" not in answer.fields
    assert answer.fields["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/files/", "OPTIONS, POST"),
        ("DELETE", "/files", "OPTIONS, POST"),
        ("PATCH", "/files/", "OPTIONS, POST"),
        ("POST", "/files/0123456789abcdef0", "OPTIONS, HEAD, GET, PATCH, DELETE"),
        ("PUT", "/files/0123456789abcdef0", "OPTIONS, HEAD, GET, PATCH, DELETE"),
    ],
)
def test_other_methods_are_told_the_right_ones(server: Server, method: str, path: str, allowed: str) -> None:
    answer = server.ask(method, path, TUS)
    assert (answer.status, answer.fields["allow"]) == (405, allowed)
    assert answer.fields["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize("actual", ["POST", "GET", "PUT"])
def test_the_override_is_the_method(server: Server, actual: str) -> None:
    path = server.create(length=3)
    fields = f"{APPEND}X-HTTP-Method-Override: PATCH\r\nUpload-Offset: 0\r\n"
    assert server.ask(actual, path, fields, b"abc").fields["upload-offset"] == "3"
    assert server.ask(actual, path, TUS + "X-HTTP-Method-Override: DELETE\r\n").status == 204


def test_an_overridden_head_has_no_body(server: Server) -> None:
    answer = server.ask("POST", server.create(), TUS + "X-HTTP-Method-Override: HEAD\r\n", b"")
    assert (answer.status, answer.body, answer.fields["upload-offset"]) == (200, b"", "0")


def test_an_unknown_override_does_nothing_under_the_actual_method(server: Server) -> None:
    path = server.create()
    assert server.ask("DELETE", path, TUS + "X-HTTP-Method-Override: ERASE\r\n").status == 405
    assert server.offset(path) == 0


def test_a_get_of_an_unfinished_upload_is_not_found(server: Server) -> None:
    assert server.ask("GET", server.create()).status == 404


def test_a_download_cannot_run_anything(server: Server) -> None:
    name = b64encode('../x/<b>"ü.html'.encode()).decode()
    path = server.create(f"Upload-Metadata: filename {name},filetype {b64encode(b'text/html').decode()}\r\n", length=2)
    server.append(path, 0, b"<b")
    answer = server.ask("GET", path)
    assert answer.body == b"<b"
    assert answer.fields["tus-resumable"] == "1.0.0"
    assert answer.fields["content-type"] == "application/octet-stream"
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert answer.fields["content-disposition"] == (
        "attachment; filename=\"<b>__.html\"; filename*=UTF-8''%3Cb%3E%22%C3%BC.html"
    )


def expires(answer: Answer) -> float:
    return parsedate_to_datetime(answer.fields["upload-expires"]).timestamp()


def test_expiration_is_told_where_the_upload_will_expire(server: Server) -> None:
    created = server.ask("POST", "/files/", TUS + "Upload-Length: 10\r\n", b"")
    path = "/" + created.fields["location"].split("/", 3)[3]
    appended = server.append(path, 0, b"abc")
    head = server.ask("HEAD", path, TUS)
    assert expires(created) <= expires(appended)
    assert abs(expires(head) - expires(appended)) <= 1
