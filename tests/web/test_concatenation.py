"""Partials and finals over a real connection: every row of the protocol's table, and lists that mean no good."""

from __future__ import annotations

from base64 import b64encode
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Answer, Server, serving
from tests.media_files import make_media_file
from tusd_py import TusApp

PARTIAL = "Upload-Concat: partial\r\n"
UNKNOWN = "/files/0123456789abcdef0123456789abcdef"


def partial(server: Server, data: bytes) -> str:
    """Upload a partial whole and return its path."""
    path = server.create(PARTIAL, length=len(data))
    if data:
        assert server.append(path, 0, data).status == 204
    return path


def final(server: Server, *urls: str, fields: str = "", body: bytes | None = b"") -> Answer:
    return server.ask("POST", "/files/", f"{TUS}Upload-Concat: final;{' '.join(urls)}\r\n{fields}", body)


def path_of(answer: Answer) -> str:
    assert answer.status == 201, answer
    return "/" + answer.fields["location"].split("/", 3)[3]


def head(server: Server, path: str) -> Answer:
    return server.ask("HEAD", path, TUS)


def content(server: Server, path: str) -> bytes:
    answer = server.ask("GET", path)
    assert answer.status == 200, answer
    return answer.body


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Partials


def test_a_partial_tells_that_it_is_one_and_how_far_it_is(server: Server) -> None:
    path = server.create(PARTIAL)
    assert server.append(path, 0, b"0123").status == 204
    answer = head(server, path)
    assert answer.fields["upload-concat"] == "partial"
    assert answer.fields["upload-offset"] == "4"
    assert answer.fields["upload-length"] == "10"


def test_a_partial_may_come_with_its_creation_and_with_a_deferred_length(server: Server) -> None:
    whole = server.ask("POST", "/files/", f"{APPEND}{PARTIAL}Upload-Length: 4\r\n", b"0123")
    deferred = server.create(PARTIAL + "Upload-Defer-Length: 1\r\n", length=None)
    assert server.append(deferred, 0, b"4567", "Upload-Length: 4\r\n").status == 204
    assert content(server, path_of(final(server, path_of(whole), deferred))) == b"01234567"


def test_a_complete_partial_still_expires_and_says_so(server: Server) -> None:
    path = server.create(PARTIAL)
    answer = server.append(path, 0, b"0123456789")
    assert parsedate_to_datetime(answer.fields["upload-expires"])
    assert parsedate_to_datetime(head(server, path).fields["upload-expires"])


def test_a_complete_partial_is_no_file_and_no_download(server: Server, folder: Path) -> None:
    path = partial(server, b"0123456789")
    assert server.ask("GET", path).status == 404
    assert not [name for name in names_in(folder) if not name.startswith("partial/") and "workers" not in name]


def test_a_complete_partial_takes_no_more(server: Server) -> None:
    path = partial(server, b"0123456789")
    assert server.append(path, 10, b"x").status == 413
    assert server.append(path, 10, b"").status == 204


def test_a_partial_is_judged_by_nothing_that_it_holds(media_server: Server) -> None:
    named = f"Upload-Metadata: filename {b64encode(b'a.exe').decode()}\r\n"
    path = media_server.create(PARTIAL + named, length=600)
    assert media_server.append(path, 0, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(584)).status == 204


# Finals


def test_a_final_consists_of_its_partials_in_the_order_of_the_list(server: Server) -> None:
    first, second, third = partial(server, b"one"), partial(server, b"two"), partial(server, b"three")
    answer = final(server, third, first, second)
    path = path_of(answer)
    assert answer.fields["upload-offset"] == "11"
    told = head(server, path)
    assert told.fields["upload-offset"] == told.fields["upload-length"] == "11"
    assert "upload-expires" not in told.fields
    assert content(server, path) == b"threeonetwo"


def test_a_final_echoes_its_list_as_it_was_received(server: Server) -> None:
    first, second = partial(server, b"one"), partial(server, b"two")
    field = f"final; http://elsewhere.example{first}   {second}/"
    answer = server.ask("POST", "/files/", f"{TUS}Upload-Concat: {field}\r\n", b"")
    assert head(server, path_of(answer)).fields["upload-concat"] == field


@pytest.mark.parametrize(
    "form", ["{path}", "{path}/", "http://127.0.0.1:{port}{path}", "HTTPS://foreign.example{path}"]
)
def test_a_member_may_be_named_by_any_url_that_leads_to_it(server: Server, form: str) -> None:
    path = partial(server, b"one")
    assert content(server, path_of(final(server, form.format(path=path, port=server.port)))) == b"one"


@pytest.mark.parametrize("form", ["{id}", "//foreign.example/files/{id}", "/files/%{hex}{rest}"])
def test_a_member_may_be_named_by_a_relative_or_an_encoded_url(server: Server, form: str) -> None:
    id = partial(server, b"one").rpartition("/")[2]
    url = form.format(id=id, hex=f"{ord(id[0]):02X}", rest=id[1:])
    assert content(server, path_of(final(server, url))) == b"one"


def test_members_are_found_below_a_prefix_that_a_proxy_strips(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", public_url="https://a.example/up/")
    with serving(app) as server:
        location = server.ask("POST", "/files/", f"{APPEND}{PARTIAL}Upload-Length: 3\r\n", b"one").fields["location"]
        assert location.startswith("https://a.example/up/files/")
        assert final(server, location, location.removeprefix("https://a.example")).status == 201


def test_members_are_found_below_the_path_where_the_app_is_mounted(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off")
    with serving(app, root_path="/up") as server:
        # As behind a proxy that strips the prefix.
        answer = server.ask("POST", "/files/", f"{APPEND}{PARTIAL}Upload-Length: 3\r\n", b"one")
        location = answer.fields["location"]
        assert "/up/files/" in location
        assert final(server, location, "/" + location.split("/", 3)[3]).status == 201


def test_a_final_keeps_its_own_metadata_and_none_of_its_partials(server: Server) -> None:
    path = server.create(PARTIAL + "Upload-Metadata: of-the-partial YQ==\r\n", length=0)
    answer = final(server, path, fields="Upload-Metadata: filename YS5tcDM=\r\n")
    assert head(server, path_of(answer)).fields["upload-metadata"] == "filename YS5tcDM="
    assert "upload-metadata" not in head(server, path_of(final(server, path))).fields


def test_a_partial_may_be_used_twice_and_by_several_finals(server: Server) -> None:
    path = partial(server, b"one")
    assert content(server, path_of(final(server, path, path))) == b"oneone"
    assert content(server, path_of(final(server, path))) == b"one"
    assert head(server, path).fields["upload-offset"] == "3"


def test_empty_partials_add_nothing(server: Server) -> None:
    empty, full = partial(server, b""), partial(server, b"one")
    assert content(server, path_of(final(server, empty, full, empty))) == b"one"
    assert content(server, path_of(final(server, empty))) == b""


def test_partials_are_removed_after_use_where_the_operator_wants_that(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", remove_partials_after_use=True)
    with serving(app) as server:
        first, second = partial(server, b"one"), partial(server, b"two")
        path = path_of(final(server, first, second, first))
        assert content(server, path) == b"onetwoone"
        assert head(server, first).status == head(server, second).status == 404
        assert not list((folder / "partial").iterdir())


@pytest.mark.parametrize("is_complete", [True, False])
def test_bytes_for_a_final_are_refused_and_change_nothing(server: Server, is_complete: bool) -> None:
    member = partial(server, b"one") if is_complete else server.create(PARTIAL)
    path = path_of(final(server, member))
    before = head(server, path).fields.get("upload-offset"), head(server, member).fields["upload-offset"]
    for offset, body in ((0, b"x"), (3, b"x"), (3, b"")):
        answer = server.append(path, offset, body)
        assert answer.status == 403
        assert answer.text.startswith("ERR_MODIFY_FINAL: ")
    assert (head(server, path).fields.get("upload-offset"), head(server, member).fields["upload-offset"]) == before


def test_a_final_can_be_removed_and_its_partials_stay(server: Server) -> None:
    complete, unfinished = partial(server, b"one"), server.create(PARTIAL)
    for path in (path_of(final(server, complete)), path_of(final(server, complete, unfinished))):
        assert server.ask("DELETE", path, TUS).status == 204
        assert head(server, path).status == 404
    assert head(server, complete).status == head(server, unfinished).status == 200
    assert server.append(unfinished, 0, b"0123456789").status == 204


# Pending finals


def test_a_final_waits_for_its_last_partial_and_completes_with_it(server: Server) -> None:
    first, second = server.create(PARTIAL), server.create(PARTIAL)
    answer = final(server, first, second)
    path = path_of(answer)
    assert "upload-offset" not in answer.fields
    for partial in (second, first):
        told = head(server, path)
        assert told.status == 200
        assert "upload-offset" not in told.fields
        assert told.fields["upload-length"] == "20"
        assert server.ask("GET", path).status == 404
        assert server.append(partial, 0, partial[-10:].encode()).status == 204
    assert content(server, path) == (first[-10:] + second[-10:]).encode()
    assert head(server, path).fields["upload-offset"] == "20"


def test_the_length_of_a_pending_final_is_told_once_it_can_be_computed(server: Server) -> None:
    member = server.create(PARTIAL + "Upload-Defer-Length: 1\r\n", length=None)
    path = path_of(final(server, member))
    told = head(server, path)
    assert "upload-length" not in told.fields
    assert "upload-defer-length" not in told.fields
    assert server.append(member, 0, b"01", "Upload-Length: 4\r\n").status == 204
    assert head(server, path).fields["upload-length"] == "4"
    assert server.append(member, 2, b"23").status == 204
    assert content(server, path) == b"0123"


def test_a_member_that_is_removed_takes_the_pending_final_with_it(server: Server, folder: Path) -> None:
    complete, unfinished = partial(server, b"one"), server.create(PARTIAL)
    paths = [path_of(final(server, complete, unfinished)) for _ in range(2)]
    assert server.ask("DELETE", unfinished, TUS).status == 204
    assert [head(server, path).status for path in paths] == [404, 404]
    assert not [name for name in names_in(folder) if any(path.rpartition("/")[2] in name for path in paths)]


def test_partials_whose_lengths_show_to_be_too_much_take_the_final_with_them(server: Server) -> None:
    members = [server.create(PARTIAL + "Upload-Defer-Length: 1\r\n", length=None) for _ in range(2)]
    path = path_of(final(server, *members))
    for member in members:
        assert server.append(member, 0, bytes(600), "Upload-Length: 600\r\n").status == 204
    assert head(server, path).status == 404


# Lists that cannot be

HOSTILE_LISTS = {
    "traversal": "/files/../../../../etc/passwd",
    "traversal behind the base": "/files/../files/{id}",
    "encoded traversal": "/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "encoded twice": "/files/%2530{id}",
    "NUL": "/files/%00{id}",
    "side file": "/files/{id}.json",
    "side file in its folder": "/files/partial/{id}.part",
    "encoded slash": "/files/{id}%2F",
    "encoded slash before it": "/files%2f{id}",
    "another base": "/other/{id}",
    "no base": "/{id}",
    "the collection": "/files/",
    "two slashes at the end": "/files/{id}//",
    "doubled slash": "//files/{id}",
    "query": "/files/{id}?x",
    "fragment": "/files/{id}#x",
    "another scheme": "ftp://a.example/files/{id}",
    "file": "file:///files/{id}",
    "script": "javascript:alert(1)",
    "host alone": "http://a.example",
    "comma": "/files/{id},/files/{id}",
    "tab": "/files/{id}\t/files/{id}",
    "not ASCII": "/files/{id}\xe9",
    "among good ones": "/files/{id} /files/{id} /etc/passwd",
    "nothing": "",
    "spaces": "   ",
}


@pytest.mark.parametrize("urls", HOSTILE_LISTS.values(), ids=HOSTILE_LISTS.keys())
def test_a_list_of_something_else_is_refused_and_nothing_is_made(server: Server, folder: Path, urls: str) -> None:
    id = partial(server, b"one").rpartition("/")[2]
    before = names_in(folder)
    answer = final(server, urls.format(id=id))
    assert answer.status == 400
    assert answer.text.startswith("ERR_INVALID_CONCAT: ")
    assert str(folder) not in answer.text
    assert names_in(folder) == before


@pytest.mark.parametrize(
    "field", ["", "Partial", "partial;", "partial,partial", "final", "Final;{url}", "{url}", "x;{url}"]
)
def test_any_other_value_is_refused_and_nothing_is_made(server: Server, folder: Path, field: str) -> None:
    url = partial(server, b"one")
    before = names_in(folder)
    fields = f"{TUS}Upload-Concat: {field.format(url=url)}\r\nUpload-Length: 3\r\n"
    answer = server.ask("POST", "/files/", fields, b"")
    assert answer.status == 400
    assert answer.text.startswith("ERR_INVALID_CONCAT: ")
    assert names_in(folder) == before


@pytest.mark.parametrize("fields", ["Upload-Length: 3\r\n", "Upload-Defer-Length: 1\r\n"])
def test_a_final_must_not_come_with_a_length(server: Server, fields: str) -> None:
    answer = final(server, partial(server, b"one"), fields=fields)
    assert answer.status == 400
    assert answer.text.startswith("ERR_INVALID_UPLOAD_LENGTH: ")


def test_a_final_must_not_come_with_a_body(server: Server, folder: Path) -> None:
    path = partial(server, b"one")
    before = names_in(folder)
    answer = final(server, path, fields="Content-Type: application/offset+octet-stream\r\n", body=b"x")
    assert answer.status == 403
    assert answer.text.startswith("ERR_MODIFY_FINAL: ")
    assert names_in(folder) == before


def test_unknown_members_and_such_as_are_no_partials_are_refused(server: Server, folder: Path) -> None:
    good = partial(server, b"one")
    plain = server.create()
    whole = server.create(length=0)
    pending, complete = path_of(final(server, server.create(PARTIAL))), path_of(final(server, good))
    before = names_in(folder)
    assert final(server, good, UNKNOWN).status == 404
    for other in (plain, whole, pending, complete):
        answer = final(server, good, other)
        assert answer.status == 400
        assert answer.text.startswith("ERR_INVALID_CONCAT: ")
    assert names_in(folder) == before


def test_an_expired_member_is_refused(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", partial_upload_expiry_seconds=0.001)
    with serving(app) as server:
        path = server.create(PARTIAL, length=0)
        while head(server, path).status != 410:
            continue
        assert final(server, path).status == 410


def test_a_sum_above_the_maximum_is_refused_and_one_that_reaches_it_is_not(server: Server, folder: Path) -> None:
    most, one = partial(server, bytes(999)), partial(server, b"1")
    assert final(server, most, one).status == 201
    before = names_in(folder)
    assert final(server, most, one, one).status == 413
    assert final(server, most, server.create(PARTIAL, length=2)).status == 413
    assert {name for name in names_in(folder) if "partial" not in name} == {
        name for name in before if "partial" not in name
    }


def test_a_list_of_5000_members_ends_at_the_head(server: Server) -> None:
    path = partial(server, b"")
    with server.connect() as connection:
        connection.send(
            f"POST /files/ HTTP/1.1\r\nHost: a\r\n{TUS}Upload-Concat: final;{' '.join([path] * 5000)}\r\n\r\n"
        )
        assert connection.answer().status in (400, 431)
    assert head(server, path).status == 200


def test_any_number_of_members_that_fits_the_head_is_taken(server: Server) -> None:
    # More distinct ones than most systems let a process have open files.
    ids = [partial(server, b"%d" % (n % 10)).rpartition("/")[2] for n in range(1100)]
    assert content(server, path_of(final(server, *ids[:1000]))) == b"0123456789" * 100
    assert final(server, *ids).status == 413


def test_concatenation_can_be_switched_off(folder: Path) -> None:
    with serving(TusApp(upload_dir=folder, disable_concatenation=True)) as server:
        assert "concatenation" not in server.ask("OPTIONS", "/files/").fields["tus-extension"]
        for fields in (PARTIAL + "Upload-Length: 3\r\n", f"Upload-Concat: final;{UNKNOWN}\r\n"):
            answer = server.ask("POST", "/files/", TUS + fields, b"")
            assert answer.status == 400
            assert answer.text.startswith("ERR_CONCATENATION_UNSUPPORTED: ")


# What a final is, is judged by its name and its first bytes


def in_parts(server: Server, data: bytes, name: str) -> Answer:
    middle = len(data) // 2
    metadata = f"Upload-Metadata: filename {b64encode(name.encode()).decode()}\r\n"
    return final(
        server, *(partial(server, part) for part in (b"", data[:3], data[3:middle], data[middle:])), fields=metadata
    )


@pytest.fixture
def recording(tmp_path: Path) -> bytes:
    return make_media_file("tone.flac", tmp_path).read_bytes()


def test_a_recording_in_parts_is_accepted_by_its_name_and_content(
    media_server: Server, folder: Path, recording: bytes
) -> None:
    path = path_of(in_parts(media_server, recording, "tone.flac"))
    assert (folder / f"{path.rpartition('/')[2]}.flac").read_bytes() == recording


def test_a_final_of_a_name_or_content_that_is_not_accepted_is_refused(
    media_server: Server, folder: Path, recording: bytes
) -> None:
    assert in_parts(media_server, recording, "tone.exe").status == 400
    assert in_parts(media_server, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(584), "tone.flac").status == 415
    assert not list((folder / "records").iterdir())
    assert all('"members":[]' in path.read_text() for path in (folder / "partial").glob("*.json"))


def test_an_app_that_is_served_again_concatenates_again(folder: Path) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off")
    for _ in range(2):
        with serving(app) as server:
            assert final(server, partial(server, b"abc")).status == 201
            assert server.ask("GET", "/readyz").status == 200


def test_asking_for_a_partial_looks_after_no_final(server: Server) -> None:
    """Its finals wait for its last byte, and not for everybody who asks how far it is."""
    path = server.create("Upload-Concat: partial\r\n", length=3)
    waiting = final(server, path)
    assert waiting.status == 201
    assert server.offset(path) == 0
    assert server.append(path, 0, b"abc").status == 204
    assert server.ask("GET", "/" + waiting.fields["location"].split("/", 3)[3]).body == b"abc"
