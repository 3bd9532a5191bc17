"""Plain forms over a real connection: what is answered, what is kept, and that nothing is left of what is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forms import BOUNDARY, PATH, begin, content_type, detail, field_part, file_part, form, part, post, told
from tests.live import TUS, Answer, Server, serving
from tests.server_process import wait_until
from tusd_py import TusApp
from tusd_py.server.protocol import LimitedProtocol
from tusd_py.upload import is_id
from tusd_py.web.form_parser import max_overhead

MP3 = b"ID3\x03\0\0\0\0\0\0" + b"x" * 500
HTML = b"<!DOCTYPE html><html><script>alert(1)</script>" + b" " * 500
ORIGIN = "Origin: https://app.example\r\n"


def files_in(folder: Path) -> list[str]:
    """Return everything that is kept of uploads, finished or not."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".sock")
    return sorted(map(str, found))


def wait_until_empty(folder: Path) -> None:
    wait_until(lambda: not files_in(folder))


@pytest.fixture
def collecting_server(folder: Path) -> Iterator[Server]:
    """A server that takes up to three files of at most 1000 bytes in one form."""
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", max_file_size=1000, form_max_files=3)
    with serving(app, http=LimitedProtocol) as server:
        yield server


def test_a_file_of_a_form_is_an_upload_like_any_other(server: Server, folder: Path) -> None:
    answer = post(server, form(part('name="file"; filename="a.txt"\r\nContent-Type: text/plain', b"content")))

    assert answer.status == 200
    said = told(answer)
    id = said["upload_id"]
    assert is_id(id)
    assert said == {"upload_id": id, "filename": "a.txt", "size_bytes": 7, "path": f"{id}.txt"}
    assert (folder / said["path"]).read_bytes() == b"content"
    assert files_in(folder) == sorted([f"{id}.txt", f"records/{id}.json"])

    assert answer.fields["location"] == f"http://127.0.0.1:{server.port}/files/{id}"
    path = f"/files/{id}"
    head = server.ask("HEAD", path, TUS)
    assert (head.fields["upload-offset"], head.fields["upload-length"]) == ("7", "7")
    assert head.fields["upload-metadata"] == "filename YS50eHQ=,filetype dGV4dC9wbGFpbg=="
    download = server.ask("GET", path)
    assert download.body == b"content"
    assert download.fields["content-disposition"] == 'inline; filename="a.txt"'
    assert server.ask("DELETE", path, TUS).status == 204
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("parts", "filename"),
    [
        ([file_part(b"x", "own.txt")], "own.txt"),
        ([field_part("filename", "field.txt"), file_part(b"x", "own.txt")], "own.txt"),
        ([field_part("filename", "field.txt"), file_part(b"x", None)], "field.txt"),
        ([file_part(b"x", None), field_part("filename", "field.txt")], "field.txt"),
        ([file_part(b"x", ""), field_part("filename", "field.txt")], "field.txt"),
        ([field_part("other", "y"), file_part(b"x", None), field_part("filename", "Ärger.txt")], "Ärger.txt"),
        ([file_part(b"x", None), field_part("filename", "../../etc/field.txt")], "field.txt"),
        ([file_part(b"x", "../../etc/own.txt")], "own.txt"),
        ([file_part(b"x", r"C:\temp\own.txt")], "own.txt"),
        ([part("name=\"file\"; filename*=UTF-8''%C3%84.txt", b"x")], "Ä.txt"),
        ([file_part(b"x", "a" * 300 + ".txt")], "a" * 300 + ".txt"),
    ],
)
def test_the_name_is_that_of_the_part_or_else_that_of_the_field(
    server: Server, folder: Path, parts: list[bytes], filename: str
) -> None:
    said = told(post(server, form(*parts)))
    assert (said["filename"], said["path"]) == (filename, f"{said['upload_id']}.txt")
    assert (folder / said["path"]).read_bytes() == b"x"
    assert not any(path.name == "etc" for path in folder.parent.rglob("*"))


@pytest.mark.parametrize("parts", [[file_part(b"x", None)], [file_part(b"x", None), field_part("filename", "")]])
def test_a_file_without_a_name_is_called_by_its_id(server: Server, parts: list[bytes]) -> None:
    said = told(post(server, form(*parts)))
    assert said["filename"] == said["path"] == f"{said['upload_id']}.bin"


def test_an_empty_file_is_a_file(server: Server) -> None:
    assert told(post(server, form(file_part(b"", "empty.txt"))))["size_bytes"] == 0


def test_the_connection_goes_on_after_a_form(server: Server) -> None:
    body = form(file_part(b"content")) + b"an epilogue, which nobody reads"
    with server.connect() as connection:
        for _ in range(3):
            begin(connection, length=len(body)).send(body)
            assert connection.answer().status == 200


def test_a_form_may_come_chunked(server: Server) -> None:
    body = form(file_part(b"content"))
    with server.connect() as connection:
        begin(connection)
        for byte in body:
            connection.send(b"1\r\n%c\r\n" % byte)
        assert told(connection.send(b"0\r\n\r\n").answer())["size_bytes"] == 7


# The table of answers. Each row names what the sentence has to say.

REFUSED = {
    "no multipart": ("Content-Type: application/json\r\n", b"{}", 400, "the content type is not multipart/form-data"),
    "no content type": ("", b"x", 400, "the content type is not multipart/form-data"),
    "two content types": (content_type() * 2, form(file_part(MP3)), 400, "send it once"),
    "no boundary": ("Content-Type: multipart/form-data\r\n", b"x", 400, "names no boundary"),
    "long boundary": (content_type("b" * 71), b"x", 400, "more than 70 characters"),
    "no file": (content_type(), form(field_part("other", "x")), 400, "there is no file in the form"),
    "nothing": (content_type(), b"", 400, "ends before its last boundary"),
    "nothing chosen": (content_type(), form(file_part(b"", "")), 400, "there is no file in the form"),
    "file elsewhere": (content_type(), form(part('name="upload"; filename="a.mp3"', MP3)), 400, "the name file"),
    "malformed": (content_type(), b"nonsense", 400, "the form is malformed"),
    "ends early": (content_type(), form(file_part(MP3))[:-10], 400, "the form ends"),
    "ends in its file": (content_type(), form(file_part(MP3))[:300], 400, "the form ends within a file"),
    "two files": (content_type(), form(file_part(MP3), file_part(MP3)), 400, "more than one file"),
    "extension": (content_type(), form(file_part(MP3, "a.exe")), 400, ".mp3, .wav, .awb, .aac, .ogg"),
    "no extension": (content_type(), form(file_part(MP3, "a")), 400, ".mp3, .wav, .awb, .aac, .ogg"),
    "late extension": (content_type(), form(file_part(MP3, None), field_part("filename", "a.exe")), 400, ".exe is not"),
    "other content": (content_type(), form(file_part(HTML, "a.mp3")), 415, "the content is not that of a .mp3 file"),
    "other content, late name": (
        content_type(),
        form(file_part(MP3, None), field_part("filename", "a.wav")),
        415,
        "the content is not that of a .wav file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_what_is_wrong_and_leaves_nothing(media_server: Server, folder: Path, case: str) -> None:
    fields, body, status, sentence = REFUSED[case]
    answer = media_server.ask("POST", PATH, fields + ORIGIN, body)
    assert answer.status == status
    assert sentence in detail(answer)
    assert answer.fields["access-control-allow-origin"] == "*"
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert str(folder) not in answer.text
    assert files_in(folder) == []


@pytest.mark.parametrize(("sniff", "status"), [("lenient", 200), ("strict", 415), ("off", 200)])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_text_that_is_called_a_sound_is_for_the_setting_to_judge(
    folder: Path, sniff: str, status: int, is_late: bool
) -> None:
    text = b"This is no sound at all.\n" * 40
    body = form(file_part(text, None), field_part("filename", "test.mp3")) if is_late else form(file_part(text))
    with serving(TusApp(upload_dir=folder, sniff=sniff)) as server:  # type: ignore[arg-type]  # a parameter
        answer = post(server, body)
    assert answer.status == status
    assert bool(files_in(folder)) == (status == 200)


def test_the_limit_holds_while_the_file_arrives(server: Server, folder: Path) -> None:
    """Nobody has to send the rest of a file that is too large."""
    with server.connect() as connection:
        begin(connection, length=10_000).send(file_part(b"x" * 1001)[:-2])
        answer = connection.answer()
        assert connection.is_ended_by_server()
    assert (answer.status, detail(answer)) == (
        413,
        "the file is larger than the 1000 bytes that are accepted; send a smaller one",
    )
    assert files_in(folder) == []
    assert told(post(server, form(file_part(b"x" * 1000))))["size_bytes"] == 1000


def test_a_file_may_be_too_small(folder: Path) -> None:
    with serving(TusApp(upload_dir=folder, allowed_upload_extensions="*", min_file_size=10)) as server:
        assert told(post(server, form(file_part(b"0123456789"))))["size_bytes"] == 10
        kept = files_in(folder)
        answer = post(server, form(file_part(b"012345678")))
    assert (answer.status, files_in(folder)) == (400, kept)
    assert "smaller than the 10 bytes" in detail(answer)


def test_a_form_that_cannot_but_be_too_large_is_refused_before_it_is_sent(server: Server, folder: Path) -> None:
    length = 1000 + max_overhead(1) + 1
    with server.connect() as connection:
        begin(connection, fields="Expect: 100-continue\r\n", length=length)
        assert connection.answer().status == 413
    with server.connect() as connection:
        begin(connection, fields="Expect: 100-continue\r\n", length=length - 1)
        assert connection.interim() == 100


@pytest.mark.parametrize(
    ("setting", "words"), [("5GiB", "5 GiB"), ("1.5GiB", "1536 MiB"), ("500MB", "500 MB"), (1001, "1001 bytes")]
)
def test_the_limit_is_told_in_words(folder: Path, setting: str | int, words: str) -> None:
    app = TusApp(upload_dir=folder, max_file_size=setting)
    with serving(app) as server, server.connect() as connection:
        begin(connection, length=10**15)
        assert f"larger than the {words} that are accepted" in detail(connection.answer())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        f"--{BOUNDARY}\r\nContent-Dis".encode(),
        field_part("other", "x"),
        file_part(b"x" * 500)[:-200],
        file_part(b"x" * 500),
        form(file_part(b"x" * 500))[:-4],
    ],
)
@pytest.mark.parametrize("ending", ["close", "reset", "finish_sending"])
def test_a_client_that_leaves_leaves_nothing(server: Server, folder: Path, sent: bytes, ending: str) -> None:
    has_begun = b'name="file"' in sent
    with server.connect() as connection:
        begin(connection, length=5000).send(sent)
        if has_begun:
            wait_until(lambda: bool(files_in(folder)))
        getattr(connection, ending)()
        wait_until_empty(folder)
    assert server.ask("OPTIONS", PATH).status == 204


@pytest.mark.parametrize(
    "sent", [b"", field_part("other", "x")[:-20], file_part(b"x" * 500)[:-200], file_part(b"x" * 500)]
)
def test_a_client_that_falls_silent_is_told_and_leaves_nothing(folder: Path, sent: bytes) -> None:
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", body_idle_timeout_seconds=0.2)
    with serving(app) as server, server.connect() as connection:
        answer = begin(connection, length=5000).send(sent).answer()
        assert connection.is_ended_by_server()
    assert (answer.status, detail(answer)) == (408, "nothing came of the form for too long; send it again")
    assert files_in(folder) == []


def test_what_is_no_file_may_not_drip(folder: Path) -> None:
    """The time is that of all of it: a byte now and then would keep a form open for days."""
    app = TusApp(upload_dir=folder, body_idle_timeout_seconds=0.5)
    is_over = threading.Event()
    with serving(app) as server, server.connect() as connection:
        begin(connection, length=5000)

        def drip() -> None:
            for byte in field_part("other", "x" * 4000):
                if is_over.wait(0.02):
                    return
                connection.send(bytes([byte]))

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert connection.answer().status == 408
        finally:
            is_over.set()
            dripping.join()


def test_two_forms_at_once_are_two_uploads(server: Server, folder: Path) -> None:
    bodies = [form(file_part(content * 400)) for content in (b"a", b"b")]
    with server.connect() as one, server.connect() as other:
        for start in range(0, len(bodies[0]), 100):
            for connection, body in zip((one, other), bodies, strict=True):
                if start == 0:
                    begin(connection, length=len(body))
                connection.send(body[start : start + 100])
        first, second = told(one.answer()), told(other.answer())
    assert (folder / first["path"]).read_bytes() == b"a" * 400
    assert (folder / second["path"]).read_bytes() == b"b" * 400


def test_nothing_is_to_be_seen_of_a_file_before_its_form_is_whole(server: Server, folder: Path) -> None:
    body = form(file_part(b"content"), field_part("other", "x"))
    with server.connect() as connection:
        begin(connection, length=len(body)).send(body[:-1])
        wait_until(lambda: bool(list(folder.glob("partial/*.part"))))
        assert not list(folder.glob("*.mp3"))
        assert not list(folder.glob("records/*"))
        assert connection.send(body[-1:]).answer().status == 200


# Several files


def test_a_form_may_have_several_files_where_that_is_set(collecting_server: Server, folder: Path) -> None:
    parts = [
        file_part(b"1", "one.txt"),
        file_part(b"22", None),
        field_part("filename", "two.txt"),
        file_part(b"333", None),
    ]
    answer = post(collecting_server, form(*parts))
    said = told(answer)
    assert [(file["filename"], file["size_bytes"]) for file in said] == [
        ("one.txt", 1),
        ("two.txt", 2),
        (said[2]["path"], 3),
    ]
    assert [(folder / file["path"]).read_bytes() for file in said] == [b"1", b"22", b"333"]
    assert answer.fields["location"].endswith(said[0]["upload_id"])


def test_names_in_fields_are_for_the_files_without_names_in_turn(collecting_server: Server) -> None:
    names = [field_part("filename", "1.txt"), field_part("filename", "2.txt")]
    unnamed, named = file_part(b"x", None), file_part(b"x", "own.txt")
    for parts in (
        [*names, unnamed, named, unnamed],
        [unnamed, named, unnamed, *names],
        [named, unnamed, names[0], unnamed, names[1]],
        [names[0], unnamed, unnamed, named, names[1]],
    ):
        said = [file["filename"] for file in told(post(collecting_server, form(*parts)))]
        assert [name for name in said if name != "own.txt"] == ["1.txt", "2.txt"]


def test_one_file_is_told_in_a_list_where_there_could_be_several(collecting_server: Server) -> None:
    assert len(told(post(collecting_server, form(file_part(b"1"))))) == 1


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (file_part(b"4") * 2, 400),
        (file_part(b"x" * 1001), 413),
        (file_part(b"x")[:-10], 400),
    ],
)
def test_the_files_of_a_form_are_kept_together_or_not_at_all(
    collecting_server: Server, folder: Path, last: bytes, status: int
) -> None:
    assert post(collecting_server, form(file_part(b"1"), file_part(b"2"), last)).status == status
    assert files_in(folder) == []


def test_a_late_name_that_is_refused_takes_all_files_with_it(folder: Path) -> None:
    app = TusApp(upload_dir=folder, form_max_files=2)
    names = [field_part("filename", "good.mp3"), field_part("filename", "bad.exe")]
    with serving(app) as server:
        answer = post(server, form(file_part(MP3, None), file_part(MP3, None), *names))
    assert answer.status == 400
    assert files_in(folder) == []


# The endpoint


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_told_which_there_are(server: Server, method: str) -> None:
    answer = server.ask(method, PATH)
    assert (answer.status, answer.fields["allow"]) == (405, "POST, OPTIONS")


def test_options_tell_what_can_be_done(server: Server) -> None:
    answer = server.ask("OPTIONS", PATH)
    assert (answer.status, answer.fields["allow"]) == (204, "POST, OPTIONS")


def test_pages_of_other_origins_may_send_forms_and_read_what_became_of_them(server: Server) -> None:
    preflight = f"{ORIGIN}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-requested-with\r\n"
    assert server.ask("OPTIONS", PATH, preflight).status == 200
    answer = post(server, form(file_part(b"x")), content_type() + ORIGIN)
    assert answer.fields["access-control-allow-origin"] == "*"
    assert "Location" in answer.fields["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("*", "https://evil.example", 200),
        ("*", "null", 200),
        ("https://app.example", "https://app.example", 200),
        ("https://app.example", "https://evil.example", 403),
        ("https://app.example", "https://app.example.evil.example", 403),
        ("https://app.example", "null", 403),
        ("none", "https://evil.example", 403),
        ("none", "null", 403),
        ("none", "://", 403),
        # Pages of our own, also behind a proxy that tells no scheme, and programs, which have no origin.
        ("none", "http://127.0.0.1:{port}", 200),
        ("none", "https://127.0.0.1:{port}", 200),
        ("none", "http://127.0.0.1:1", 403),
        ("none", "https://pub.example", 200),
        ("none", None, 200),
    ],
)
def test_pages_of_other_origins_send_forms_only_where_they_may(
    folder: Path, allowed: str, origin: str | None, status: int
) -> None:
    """Browsers send forms of any page without asking beforehand, and CORS would only keep the answer from it."""
    app = TusApp(
        upload_dir=folder,
        allowed_upload_extensions="*",
        cors_allow_origins=allowed,
        public_url="https://pub.example/media",
    )
    with serving(app) as server:
        fields = "" if origin is None else f"Origin: {origin.format(port=server.port)}\r\n"
        answer = post(server, form(file_part(b"x")), content_type() + fields)
    assert answer.status == status
    assert bool(files_in(folder)) == (status == 200)
    if status == 403:
        assert "the operator can add the origin to cors_allow_origins" in detail(answer)


def test_a_request_is_known_by_its_id(server: Server) -> None:
    answer = post(server, form(file_part(b"x")), content_type() + "X-Request-ID: mine\r\n")
    assert answer.fields["x-request-id"] == "mine"


@pytest.mark.parametrize("path", [PATH, PATH + "/"])
def test_a_slash_at_the_end_makes_no_difference(server: Server, path: str) -> None:
    assert post(server, form(file_part(b"x")), path=path).status == 200


def test_the_path_is_a_setting(folder: Path) -> None:
    with serving(TusApp(upload_dir=folder, form_path="/drop", allowed_upload_extensions="*")) as server:
        assert post(server, form(file_part(b"x")), path="/drop").status == 200
        assert post(server, form(file_part(b"x"))).status == 404
    with serving(TusApp(upload_dir=folder, form_path=None)) as server:
        assert post(server, form(file_part(b"x"))).status == 404
        assert server.ask("GET", PATH).status == 404


def test_the_endpoint_of_uploads_may_be_the_root(folder: Path) -> None:
    with serving(TusApp(upload_dir=folder, base_path="/", allowed_upload_extensions="*")) as server:
        answer = post(server, form(file_part(b"x")))
        assert answer.fields["location"] == f"http://127.0.0.1:{server.port}/{told(answer)['upload_id']}"


def test_the_location_is_the_one_that_the_client_can_use(folder: Path) -> None:
    def location(forwarded: str = "", **knobs: object) -> str:
        app = TusApp(upload_dir=folder, allowed_upload_extensions="*", **knobs)  # type: ignore[arg-type]  # a table
        with serving(app) as server:
            answer: Answer = post(server, form(file_part(b"x")), content_type() + forwarded)
        return answer.fields["location"].removesuffix(told(answer)["upload_id"])

    proxied = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: up.example\r\nX-Forwarded-Prefix: /media\r\n"
    assert location(proxied) == "https://up.example/media/files/"
    assert location(public_url="https://pub.example/x") == "https://pub.example/x/files/"
    assert location(relative_location=True) == "/files/"


def test_a_foreign_host_is_refused_in_the_words_of_forms(folder: Path) -> None:
    with serving(TusApp(upload_dir=folder, allowed_hosts="up.example")) as server, server.connect() as connection:
        connection.send(f"POST {PATH} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n")
        answer = connection.answer()
    assert answer.status == 421
    assert "does not answer for the host" in detail(answer)


def test_a_fault_of_ours_tells_nothing_but_a_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tusd_py.web import form as endpoint

    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(endpoint, "parse_boundary", fail)
    with serving(TusApp(upload_dir=folder)) as server:
        answer = post(server, form(file_part(b"x")))
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "incident" in detail(answer)
