"""The IETF draft over real connections: each rule that satisfies every version, in every version that it concerns."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Server, serving
from tests.web.drafts import (
    APPEND_TYPE,
    VERSIONS,
    append,
    ask_chunked,
    create,
    created,
    flag,
    head,
    is_told,
    path_of,
    problem_of,
    version,
)
from tests.web.test_endpoints import files_in
from tusd_py import TusApp
from tusd_py.server.protocol import LimitedProtocol

every_version = pytest.mark.parametrize("number", VERSIONS)
REGISTRY = "https://iana.org/assignments/http-problem-types#"


def digest(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.fixture
def limited_server(folder: Path) -> Iterator[Server]:
    """A server with all limits that the draft knows."""
    app = TusApp(
        upload_dir=folder,
        allowed_upload_extensions="*",
        sniff="off",
        max_file_size=1000,
        min_file_size=5,
        max_append_size=10,
        min_append_size=3,
        create_with_put=True,
    )
    with serving(app, http=LimitedProtocol) as server:
        yield server


def stored(folder: Path, path: str) -> bytes:
    """Return the content of a finished upload."""
    [found] = folder.glob(path.rpartition("/")[2] + "*")
    return found.read_bytes()


# 1 Offset retrieval


@every_version
def test_the_offset_is_told_with_everything_known(server: Server, number: int) -> None:
    path = created(server, number, b"01234", "Upload-Length: 10\r\n")
    answer = head(server, number, path)
    assert answer.status == 204
    assert answer.fields["upload-offset"] == "5"
    assert answer.fields["upload-length"] == "10"
    assert answer.fields["cache-control"] == "no-store"
    assert answer.fields["upload-draft-interop-version"] == str(number)
    assert ("upload-limit" in answer.fields) is (number >= 6)
    assert is_told(answer, number, complete=False)


@every_version
def test_the_offset_of_a_finished_upload_is_told_the_same_way(server: Server, number: int) -> None:
    path = path_of(create(server, number, b"01234", complete=True))
    answer = head(server, number, path)
    assert (answer.status, answer.fields["upload-offset"], answer.fields["upload-length"]) == (204, "5", "5")
    assert is_told(answer, number, complete=True)


@pytest.mark.parametrize("number", [9, 10])
@pytest.mark.parametrize("complete", [True, False])
def test_get_asks_for_the_offset_from_version_9_on(server: Server, number: int, complete: bool) -> None:
    path = path_of(create(server, number, b"01234", complete=complete))
    answer = server.ask("GET", path, version(number))
    assert (answer.status, answer.fields["upload-offset"], answer.body) == (204, "5", b"")
    assert is_told(answer, number, complete=complete)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8])
def test_get_is_a_download_before(server: Server, number: int) -> None:
    path = path_of(create(server, number, b"01234", complete=True))
    answer = server.ask("GET", path, version(number))
    assert (answer.status, answer.body, answer.fields["upload-offset"]) == (200, b"01234", "5")
    assert server.ask("GET", created(server, number), version(number)).status == 404


def test_get_asks_for_the_offset_also_where_there_are_no_downloads(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", disable_download=True)
    with serving(app, http=LimitedProtocol) as server:
        path = path_of(create(server, 9, b"01234", complete=True))
        assert server.ask("GET", path, version(9)).status == 204
        assert server.ask("GET", path, version(8)).status == 405


# 2 Statuses


@every_version
def test_an_upload_goes_on_until_its_client_says_that_it_ends(server: Server, folder: Path, number: int) -> None:
    made = create(server, number)
    path = path_of(made)
    unfinished = append(server, number, path, 0, b"01234")
    assert (made.status, unfinished.status) == (201, 201 if number <= 6 else 204)
    final = append(server, number, path, 5, b"56789", complete=True)
    assert (final.status, final.fields["upload-offset"]) == (201, "10")
    assert is_told(final, number, complete=True)
    assert stored(folder, path) == b"0123456789"


@every_version
def test_the_final_answer_is_one_and_the_same(server: Server, number: int) -> None:
    at_once = create(server, number, b"0123456789", complete=True)
    path = created(server, number, b"01234")
    in_two = append(server, number, path, 5, b"56789", complete=True)
    different = {"location", "date", "x-request-id"}
    assert at_once.status == in_two.status
    assert {n: v for n, v in at_once.fields.items() if n not in different} == {
        n: v for n, v in in_two.fields.items() if n not in different
    }
    assert path_of(in_two) == path


@pytest.mark.parametrize("number", [9, 10])
def test_a_valid_repeat_gets_the_final_answer_again(server: Server, number: int) -> None:
    path = created(server, number, b"01234")
    first = append(server, number, path, 5, complete=True)
    again = append(server, number, path, 5, complete=True)
    assert (again.status, again.fields["location"], again.fields["upload-offset"]) == (
        first.status,
        first.fields["location"],
        "5",
    )
    assert is_told(again, number, complete=True)


@every_version
def test_a_finished_upload_takes_no_more(server: Server, folder: Path, number: int) -> None:
    path = path_of(create(server, number, b"01234", complete=True))
    with_bytes = append(server, number, path, 5, b"5", complete=True)
    unfinished = append(server, number, path, 5)
    assert with_bytes.status == 400
    assert unfinished.status == (410 if number == 8 else 400)
    types = {8: REGISTRY + "inconsistent-upload-length"}
    if number < 9:
        assert problem_of(with_bytes)["type"] == types.get(number, REGISTRY + "completed-upload")
    assert stored(folder, path) == b"01234"


# 3 to 5 Upload-Offset, Location and the flag


@every_version
def test_every_answer_tells_the_offset_and_the_flag(server: Server, number: int) -> None:
    path = created(server, number, b"01234")
    answers = [
        create(server, number),
        create(server, number, b"01234"),
        create(server, number, bytes(1001)),
        create(server, number, fields="Upload-Length: 1001\r\n"),
        append(server, number, path, 5, b"5"),
        append(server, number, path, 2, b"5"),
        append(server, number, path, 6, bytes(1001)),
    ]
    assert [answer.status for answer in answers] == [201, 201, 413, 413, 201 if number <= 6 else 204, 409, 413]
    assert [answer.fields["upload-offset"] for answer in answers] == ["0", "5", "0", "0", "6", "6", "6"]
    assert all(is_told(answer, number, complete=False) for answer in answers)
    assert all("location" not in answer.fields for answer in answers[2:])


# 6 Discovery


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/unknown-but-well-formed-id"])
def test_options_tells_limits_and_the_type_of_an_append(server: Server, path: str) -> None:
    for fields in ("", version(8), TUS):
        answer = server.ask("OPTIONS", path, fields)
        assert answer.status == 204
        assert answer.fields["upload-limit"] == "max-size=1000, max-age=600"
        assert answer.fields["accept-patch"] == "application/partial-upload"
        assert answer.fields["tus-version"] == "1.0.0"


def test_without_limits_options_says_so(folder: Path) -> None:
    app = TusApp(upload_dir=folder, max_file_size=None, partial_upload_expiry_seconds=None)
    with serving(app, http=LimitedProtocol) as server:
        assert server.ask("OPTIONS", "/files/").fields["upload-limit"] == "min-size=0"


# 7 Cancellation


@every_version
@pytest.mark.parametrize("complete", [True, False])
def test_a_cancelled_upload_is_gone_for_everything(server: Server, folder: Path, number: int, complete: bool) -> None:
    path = path_of(create(server, number, b"01234", complete=complete))
    assert server.ask("DELETE", path, version(number)).status == 204
    assert head(server, number, path).status == 404
    assert append(server, number, path, 5).status == 404
    assert server.ask("DELETE", path, version(number)).status == 404
    assert files_in(folder / "partial") == []


@every_version
@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_stray_fields_are_refused_where_the_text_says_so(server: Server, number: int, method: str) -> None:
    path = created(server, number, b"01234")
    for stray in ("Upload-Offset: 5\r\n", flag(number, complete=True)):
        if method == "HEAD" or number <= 6:
            answer = server.ask(method, path, version(number) + stray)
            assert answer.status == (400 if number <= 6 else 204)
    assert head(server, number, path).fields["upload-offset"] == "5"


# 8 Redirects


@every_version
def test_nothing_is_redirected(server: Server, number: int) -> None:
    told = version(number) + flag(number, complete=False)
    assert server.ask("POST", "/files", told, b"").status == 201
    path = created(server, number)
    assert server.ask("HEAD", path + "/", version(number)).status == 204
    assert server.ask("DELETE", path + "/", version(number)).status == 204


# 9 to 11 Types, offsets, malformed fields


@every_version
@pytest.mark.parametrize("content_type", ["", "Content-Type: application/offset+octet-stream\r\n"])
def test_the_type_of_an_append_matters_from_version_6_on(server: Server, number: int, content_type: str) -> None:
    path = created(server, number)
    answer = append(server, number, path, 0, b"01234", fields=content_type)
    if number <= 5:
        assert answer.status == 201
    else:
        assert answer.status == 415
        assert answer.fields["accept-patch"] == "application/partial-upload"
        assert "send Content-Type: application/partial-upload" in str(problem_of(answer)["detail"])
        assert head(server, number, path).fields["upload-offset"] == "0"


@every_version
@pytest.mark.parametrize("offset", ["", "Upload-Offset: -1\r\n", "Upload-Offset: 0\r\nUpload-Offset: 0\r\n"])
def test_an_append_without_a_valid_offset_stores_nothing(server: Server, number: int, offset: str) -> None:
    path = created(server, number)
    told = version(number) + flag(number, complete=True) + offset + APPEND_TYPE
    answer = server.ask("PATCH", path, told, b"01234")
    assert answer.status == 400
    assert "send the offset that HEAD gives" in str(problem_of(answer)["detail"])
    assert head(server, number, path).fields["upload-offset"] == "0"


@every_version
def test_an_append_without_a_flag_completes_up_to_version_6(server: Server, number: int) -> None:
    path = created(server, number)
    answer = append(server, number, path, 0, b"01234", complete=None)
    assert answer.status == (201 if number <= 6 else 400)
    assert is_told(head(server, number, path), number, complete=number <= 6)


def test_parameters_and_white_space_of_structured_fields_do_not_matter(server: Server) -> None:
    told = "Upload-Draft-Interop-Version:  6;a=b \r\nUpload-Complete: ?1;x\r\n"
    assert is_told(server.ask("POST", "/files/", told, b"01234"), 6, complete=True)


# 12 and 13 Ends


@every_version
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_that_breaks_off_is_kept_and_never_complete(
    server: Server, number: int, complete: bool, framing: str
) -> None:
    path = created(server, number, fields="Upload-Length: 10\r\n")
    told = version(number) + flag(number, complete=complete) + "Upload-Offset: 0\r\n" + APPEND_TYPE + framing
    with server.connect() as connection:
        connection.send(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{told}\r\n")
        connection.send(b"01234" if framing.startswith("C") else b"5\r\n01234\r\n")
    answer = head(server, number, path)
    assert answer.fields["upload-offset"] in ("0", "5")
    assert is_told(answer, number, complete=False)


@every_version
def test_a_whole_body_completes_whoever_comes_in_between(server: Server, folder: Path, number: int) -> None:
    path = created(server, number)
    told = version(number) + flag(number, complete=True) + "Upload-Offset: 0\r\n" + APPEND_TYPE
    with server.connect() as connection:
        connection.send(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{told}Content-Length: 5\r\n\r\n01234")
        while True:
            answer = head(server, number, path)
            if answer.fields["upload-offset"] == "5":
                break
    assert is_told(answer, number, complete=True)
    assert stored(folder, path) == b"01234"


@every_version
def test_all_bytes_are_not_the_end_and_an_empty_append_is(server: Server, folder: Path, number: int) -> None:
    path = created(server, number, b"01234", "Upload-Length: 5\r\n")
    assert is_told(head(server, number, path), number, complete=False)
    assert files_in(folder / "records") == []
    assert append(server, number, path, 5, complete=True).status == 201
    assert stored(folder, path) == b"01234"


@every_version
def test_chunked_bodies_are_compared_with_the_length_at_their_end(server: Server, number: int) -> None:
    path = created(server, number, b"01", "Upload-Length: 10\r\n")
    told = version(number) + flag(number, complete=True) + APPEND_TYPE
    short = ask_chunked(server, "PATCH", path, told + "Upload-Offset: 2\r\n", b"23", b"4")
    assert (short.status, short.fields["upload-offset"]) == (400, "5")
    assert is_told(short, number, complete=False)
    if number >= 7:
        assert problem_of(short)["type"] == REGISTRY + "inconsistent-upload-length"
    rest = ask_chunked(server, "PATCH", path, told + "Upload-Offset: 5\r\n", b"56", b"789")
    assert (rest.status, rest.fields["upload-offset"]) == (201, "10")


@every_version
def test_lengths_that_disagree_are_refused_before_the_body(server: Server, number: int) -> None:
    both = create(server, number, b"01234", complete=True, fields="Upload-Length: 6\r\n")
    assert both.status == 400
    path = created(server, number, b"01", "Upload-Length: 10\r\n")
    for refused in (
        append(server, number, path, 2, b"2345", complete=True),
        append(server, number, path, 2, b"234567890", complete=True),
        append(server, number, path, 2, b"2", fields=APPEND_TYPE + "Upload-Length: 11\r\n"),
        append(server, number, path, 2, b"2", fields=APPEND_TYPE + "Upload-Length: 9\r\n"),
        append(server, number, path, 2, b"2345", complete=True, fields=APPEND_TYPE + "Upload-Length: 10\r\n"),
    ):
        assert (refused.status, refused.fields["upload-offset"]) == (400, "2")
        assert is_told(refused, number, complete=False)
    assert append(server, number, path, 2, b"23456789", complete=True).status == 201


@pytest.mark.parametrize(("body", "end"), [(b"2345", 6), (b"234567890", 11)])
def test_a_last_body_of_another_size_is_told_of_its_size(server: Server, body: bytes, end: int) -> None:
    path = created(server, 6, b"01", "Upload-Length: 10\r\n")
    refused = append(server, 6, path, 2, body, complete=True)
    told = str(problem_of(refused)["detail"])
    assert told.startswith(f"the body ends at {end}, and the length is 10; ")
    # It sent no such field.
    assert "Upload-Length" not in told


@every_version
def test_the_length_of_a_last_request_that_is_cut_is_known(server: Server, number: int) -> None:
    path = created(server, number)
    told = version(number) + flag(number, complete=True) + "Upload-Offset: 0\r\n" + APPEND_TYPE
    with server.connect() as connection:
        connection.send(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{told}Content-Length: 10\r\n\r\n01234")
        # A newcomer finds it at work: then it has read the head.
        answer = head(server, number, path)
        while "upload-length" not in answer.fields:
            answer = head(server, number, path)
    assert answer.fields["upload-length"] == "10"


@every_version
@pytest.mark.parametrize("is_chunked", [True, False])
def test_bytes_beyond_the_length_are_refused_and_spoil_the_upload_from_version_7_on(
    server: Server, folder: Path, number: int, is_chunked: bool
) -> None:
    path = created(server, number, b"01", "Upload-Length: 5\r\n")
    if is_chunked:
        told = version(number) + flag(number, complete=False) + APPEND_TYPE + "Upload-Offset: 2\r\n"
        answer = ask_chunked(server, "PATCH", path, told, b"234", b"5")
    else:
        answer = append(server, number, path, 2, b"2345")
    assert answer.status == 400
    assert head(server, number, path).status == (204 if number <= 6 else 404)
    if number >= 7:
        assert problem_of(answer)["type"] == REGISTRY + "inconsistent-upload-length"
        assert files_in(folder / "partial") == []


# 14 and 15 Offsets and overlapping requests


@every_version
def test_a_wrong_offset_is_told_the_right_one(server: Server, number: int) -> None:
    path = created(server, number, b"01234")
    answer = append(server, number, path, 3, b"34567")
    assert (answer.status, answer.fields["upload-offset"]) == (409, "5")
    if number >= 6:
        problem = problem_of(answer)
        assert problem["type"] == REGISTRY + "mismatching-upload-offset"
        assert (problem["expected-offset"], problem["provided-offset"]) == (5, 3)
    # Whatever else is wrong with the request follows from that.
    lost = append(server, number, path, 3, b"3", complete=True, fields=APPEND_TYPE + "Upload-Length: 10\r\n")
    assert (lost.status, lost.fields["upload-offset"]) == (409, "5")
    assert append(server, number, path, 5, b"56789", complete=True).status == 201


@every_version
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_a_newcomer_ends_the_request_that_runs(server: Server, number: int, method: str) -> None:
    path = created(server, number)
    told = version(number) + flag(number, complete=False) + "Upload-Offset: 0\r\n" + APPEND_TYPE
    with server.connect() as connection:
        connection.send(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{told}Content-Length: 10\r\n\r\n01234")
        while True:
            answer = head(server, number, path)
            if answer.fields["upload-offset"] == "5":
                break
        assert connection.answer().status == 409
    if method == "PATCH":
        assert append(server, number, path, 5, b"56789").status in (201, 204)
    if method == "DELETE":
        assert server.ask("DELETE", path, version(number)).status == 204


# 16 and 18 Metadata and downloads


@every_version
def test_name_and_type_come_from_the_fields_of_http(server: Server, folder: Path, number: int) -> None:
    fields = "Content-Type: audio/mpeg\r\nContent-Disposition: attachment; filename*=UTF-8''f%C3%BCr.mp3\r\n"
    path = path_of(create(server, number, b"01234", complete=True, fields=fields))
    assert (folder / (path.rpartition("/")[2] + ".mp3")).read_bytes() == b"01234"
    assert "filename*=UTF-8''f%C3%BCr.mp3" in server.ask("GET", path).fields["content-disposition"]
    told = server.ask("HEAD", path, TUS).fields["upload-metadata"]
    assert told == "filename ZsO8ci5tcDM=,filetype YXVkaW8vbXBlZw=="


@every_version
def test_a_malformed_name_never_hurts(server: Server, number: int) -> None:
    for name in ('attachment; filename="', "attachment; filename*=UTF-8''%ff", ";;;"):
        answer = create(server, number, b"01234", complete=True, fields=f"Content-Disposition: {name}\r\n")
        assert answer.status == 201


def test_what_is_no_sound_or_film_is_refused_by_its_name_and_by_its_content(media_server: Server, folder: Path) -> None:
    name = "Content-Disposition: attachment; filename=setup.exe\r\n"
    by_name = create(media_server, 8, b"MZ", complete=True, fields=name)
    by_content = create(media_server, 8, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(600), complete=True)
    assert (by_name.status, by_content.status) == (400, 415)
    assert is_told(by_name, 8, complete=True)
    assert is_told(by_content, 8, complete=True)
    assert files_in(folder / "partial") == []


# Versions


@pytest.mark.parametrize("given", ["2", "11", "six", "6, 6", ""])
def test_of_an_unknown_version_a_whole_file_is_taken(server: Server, folder: Path, given: str) -> None:
    told = f"Upload-Draft-Interop-Version: {given}\r\nUpload-Complete: ?1\r\n"
    answer = server.ask("POST", "/files/", told, b"01234")
    assert answer.status == 201
    assert "upload-draft-interop-version" not in answer.fields
    assert stored(folder, path_of(answer)) == b"01234"


def test_a_limit_on_appends_does_not_bind_an_ordinary_upload(limited_server: Server) -> None:
    told = "Upload-Draft-Interop-Version: 11\r\nUpload-Complete: ?1\r\n"
    assert limited_server.ask("POST", "/files/", told, bytes(11)).status == 201


@pytest.mark.parametrize("given", ["2", "11", "six"])
def test_of_an_unknown_version_nothing_else_is(server: Server, given: str) -> None:
    path = created(server, 6)
    told = f"Upload-Draft-Interop-Version: {given}\r\n"
    for answer in (
        server.ask("POST", "/files/", told + "Upload-Complete: ?0\r\n", b""),
        server.ask("PATCH", path, told + "Upload-Complete: ?1\r\nUpload-Offset: 0\r\n" + APPEND_TYPE, b"01234"),
        server.ask("DELETE", path, told),
    ):
        assert answer.status == 400
        assert "send one of 3, 4, 5, 6, 7, 8, 9, 10" in str(problem_of(answer)["detail"])
    assert server.ask("HEAD", path, told).status == 400
    assert head(server, 6, path).fields["upload-offset"] == "0"


def test_a_version_is_that_of_a_request_and_never_of_an_upload(server: Server, folder: Path) -> None:
    """A phone may be updated in the middle of an upload."""
    path = created(server, 3, b"0")
    for offset, number in enumerate((4, 5, 6, 7, 8, 9), start=1):
        assert append(server, number, path, offset, str(offset).encode()).status in (201, 204)
    assert server.append(path, 7, b"7").status == 204
    assert append(server, 10, path, 8, b"89", complete=True).status == 201
    assert stored(folder, path) == b"0123456789"


def test_without_a_version_the_coming_rfc_can_be_switched_on(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", draft_without_version=True)
    with serving(app, http=LimitedProtocol) as server:
        made = server.ask("POST", "/files/", "Upload-Complete: ?0\r\n", b"01234")
        assert made.status == 201
        told = "Upload-Complete: ?1\r\nUpload-Offset: 5\r\n" + APPEND_TYPE
        final = server.ask("PATCH", path_of(made), told, b"56789")
        assert (final.status, final.fields["upload-complete"]) == (201, "?1")
        assert "upload-draft-interop-version" not in final.fields
        assert server.ask("HEAD", path_of(made)).fields["upload-complete"] == "?1"
        assert server.ask("GET", path_of(made)).body == b"0123456789"
        assert server.ask("DELETE", path_of(made)).status == 204


def test_a_request_in_both_dialects_speaks_tus(server: Server) -> None:
    answer = server.ask("POST", "/files/", TUS + version(6) + flag(6, complete=True) + "Upload-Length: 10\r\n", b"")
    assert answer.fields["tus-resumable"] == "1.0.0"
    assert "upload-complete" not in answer.fields


# PUT


def test_put_creates_where_it_is_switched_on(limited_server: Server, server: Server) -> None:
    told = version(6) + flag(6, complete=True)
    assert limited_server.ask("PUT", "/files/", told, b"01234").status == 201
    assert limited_server.ask("PUT", "/files/", TUS + "Upload-Length: 10\r\n", b"").status == 405


def test_put_is_not_served_by_default(server: Server) -> None:
    answer = server.ask("PUT", "/files/", version(6) + flag(6, complete=True), b"01234")
    assert (answer.status, answer.fields["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("with_put", [True, False])
def test_a_preflight_allows_put_where_it_is_switched_on(folder: Path, with_put: bool) -> None:
    preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n"
    with serving(TusApp(upload_dir=folder, create_with_put=with_put), http=LimitedProtocol) as server:
        answer = server.ask("OPTIONS", "/files/", preflight)
    assert ("PUT" in answer.fields["access-control-allow-methods"]) is with_put


# Limits


def test_limits_are_told_and_kept(limited_server: Server) -> None:
    server = limited_server
    told = "max-size=1000, min-size=5, max-append-size=10, min-append-size=3"
    assert server.ask("OPTIONS", "/files/").fields["upload-limit"] == f"{told}, max-age=600"
    path = created(server, 8)
    refusals = [
        append(server, 8, path, 0, bytes(11)),
        append(server, 8, path, 0, b"01"),
        append(server, 8, path, 0, b"0123", complete=True),
        create(server, 8, fields="Upload-Length: 4\r\n"),
        create(server, 8, fields="Upload-Length: 1001\r\n"),
        create(server, 9, b"01"),
        create(server, 9, bytes(11)),
        ask_chunked(
            server,
            "PATCH",
            path,
            version(8) + "Upload-Complete: ?0\r\nUpload-Offset: 0\r\n" + APPEND_TYPE,
            bytes(6),
            bytes(6),
        ),
    ]
    assert [answer.status for answer in refusals] == [413, 400, 400, 400, 413, 400, 413, 413]
    assert all(answer.fields["upload-limit"] == told for answer in refusals)
    assert all(answer.fields["upload-complete"] == "?0" for answer in refusals)
    assert head(server, 8, path).fields["upload-offset"] == "0"
    assert append(server, 8, path, 0, bytes(10)).status == 204
    assert append(server, 8, path, 10, b"0", complete=True).status == 201


# Digests, in every dialect


@every_version
def test_content_is_held_against_its_digest(server: Server, number: int) -> None:
    path = created(server, number)
    wrong = append(server, number, path, 0, b"01234", fields=f"{APPEND_TYPE}Content-Digest: {digest(b'other')}\r\n")
    assert (wrong.status, wrong.fields["upload-offset"]) == (400, "0")
    assert is_told(wrong, number, complete=False)
    right = append(server, number, path, 0, b"01234", fields=f"{APPEND_TYPE}Content-Digest: {digest(b'01234')}\r\n")
    assert right.fields["upload-offset"] == "5"


@pytest.mark.parametrize("written", ["md5=:aGVsbG8=:", "sha-256=nonsense", "sha-256=:aGVsbG8=:,", ""])
def test_a_digest_that_nobody_knows_or_can_read_never_hurts(server: Server, written: str) -> None:
    assert create(server, 6, b"01234", complete=True, fields=f"Content-Digest: {written}\r\n").status == 201


@every_version
def test_the_whole_is_held_against_its_digest(server: Server, folder: Path, number: int) -> None:
    path = created(server, number, b"01234", f"Repr-Digest: {digest(b'0123456789')}\r\n")
    final = append(
        server, number, path, 5, b"56789", complete=True, fields=APPEND_TYPE + "Want-Repr-Digest: sha-256=1\r\n"
    )
    assert final.status == 201
    assert final.fields["repr-digest"] == digest(b"0123456789")
    wrong = created(server, number, b"01234", f"Repr-Digest: {digest(b'other')}\r\n")
    refused = append(server, number, wrong, 5, b"56789", complete=True)
    assert refused.status == 400
    assert is_told(refused, number, complete=number >= 7)
    assert head(server, number, wrong).status == 404


def test_digests_are_served_in_tus_too(server: Server) -> None:
    path = server.create(f"Repr-Digest: {digest(b'0123456789')}\r\n")
    wrong = server.append(path, 0, b"0123456789", f"Content-Digest: {digest(b'other')}\r\n")
    assert wrong.status == 400
    assert wrong.text.startswith("ERR_DIGEST_MISMATCH: ")
    assert server.append(path, 0, b"0123456789", f"Content-Digest: {digest(b'0123456789')}\r\n").status == 204
    download = server.ask("GET", path, "Want-Repr-Digest: sha-512=5, sha-256=3\r\n")
    assert download.fields["repr-digest"] == digest(b"0123456789")
    assert "repr-digest" not in server.ask("GET", path).fields
    bad = server.create(f"Repr-Digest: {digest(b'other')}\r\n")
    assert server.append(bad, 0, b"0123456789").status == 400
    assert server.ask("HEAD", bad, APPEND).status == 404
