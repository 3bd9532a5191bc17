"""``tusd-py doctor`` in front of real proxies: those that leave uploads alone, and those that do not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from tests.proxies.programs import NAME, PROXIES, free_port, haproxy, make_certificate, nginx, replaced, running, site
from tests.server_process import ServerProcess, program, surroundings
from tusd_py.cli import main

pytestmark = pytest.mark.xdist_group("proxies")

README = Path(__file__).parents[2] / "README.md"

# What nginx needs for uploads, on one line; each test leaves out or breaks some of it.
UNBUFFERED = (
    'client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";'
)
TOLD = (
    "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; "
    "proxy_set_header X-Forwarded-Prefix /media;"
)


class Shared(NamedTuple):
    """One server for many proxies."""

    port: int
    upload_dir: Path

    def partials(self) -> set[Path]:
        return set((self.upload_dir / "partial").iterdir())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    with ServerProcess(folder, "--allowed-hosts", "inner.example") as server:
        yield Shared(server.port, folder)


def examine(url: str, *flags: str) -> tuple[int, list[str], list[str]]:
    """Run the doctor; return its exit code, what is well and what is trouble, the latter with their advice."""
    result = CliRunner().invoke(main, ["doctor", url, "--insecure", "--patience", "0.3", *flags])
    assert result.stderr == ""
    lines = result.output.replace("\n    ", " | ").splitlines()
    assert lines[-1] == ("There is trouble." if result.exit_code else "All is well.")
    well = [line.removeprefix("ok: ") for line in lines if line.startswith("ok: ")]
    return result.exit_code, well, [line.removeprefix("TROUBLE: ") for line in lines if line.startswith("TROUBLE: ")]


@contextmanager
def behind_nginx(folder: Path, shared: Shared, location: str, *, tls: bool = False) -> Iterator[str]:
    """Put nginx with these lines in its ``location`` before the server; give the URL that clients have."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    if tls:
        pem = make_certificate(folder)
        listen += f" ssl; ssl_certificate {pem}; ssl_certificate_key {pem}"
    sites = (
        f"server {{ listen {listen}; location /media/ {{\n"
        f"proxy_pass http://127.0.0.1:{shared.port}/; proxy_redirect off;\n{location}\n}} }}\n"
    )
    with running(nginx(folder, sites), folder, port):
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/media/files/"


def troubles_behind_nginx(folder: Path, shared: Shared, location: str, *, tls: bool = False) -> list[str]:
    """Return what the doctor finds behind nginx, and demand that it leaves nothing behind."""
    before = shared.partials()
    with behind_nginx(folder, shared, location, tls=tls) as url:
        code, _, troubles = examine(url)
    assert code == (1 if troubles else 0)
    assert shared.partials() <= before
    return troubles


def test_a_server_without_a_proxy_is_well(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        done = subprocess.run(program("doctor", server.url), capture_output=True, text=True, env=surroundings())
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 9
    assert done.stdout.endswith("\nAll is well.\n")
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_configurations_of_the_documentation_are_well(tmp_path: Path, proxy: str) -> None:
    with site(proxy, tmp_path, "localhost") as behind:
        assert examine(behind.endpoint)[::2] == (0, [])
        assert not list((behind.upload_dir / "partial").iterdir())


def test_the_deployment_section_of_the_readme_works_as_printed(tmp_path: Path) -> None:
    """Only the folder is another one, and the name is one that this machine knows."""
    section = README.read_text(encoding="utf-8").partition("## Deployment\n")[2].partition("\n## ")[0]
    serve, doctor = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    serve = replaced(serve, {"/srv/uploads": str(tmp_path / "uploads"), NAME: "localhost"})

    with site("nginx", tmp_path, "localhost", serve) as behind:
        words = replaced(doctor, {NAME: behind.authority}).split()
        assert words[:2] == ["tusd-py", "doctor"]
        assert examine(*words[2:])[::2] == (0, [])


def test_nginx_as_it_comes_buffers_and_refuses(tmp_path: Path, shared: Shared) -> None:
    troubles = troubles_behind_nginx(tmp_path, shared, TOLD)
    assert [trouble.split("|")[0] for trouble in troubles] == [
        "The bytes of bodies do not reach the server before the body is whole: something in between buffers them, and "
        "they are lost when a client is cut off. ",
        "The bytes of chunked bodies do not reach the server before the body is whole: something in between buffers "
        "them, and they are lost when a client is cut off. ",
        "A body of 5.0 GiB is answered 413 by something in front of the server, which itself would take it. ",
    ]
    assert "nginx: proxy_request_buffering off; proxy_http_version 1.1;" in troubles[0]
    assert "nginx: client_max_body_size 0;" in troubles[2]


def test_nginx_without_http_1_1_buffers_chunked_bodies_alone(tmp_path: Path, shared: Shared) -> None:
    [trouble] = troubles_behind_nginx(tmp_path, shared, TOLD + "client_max_body_size 0; proxy_request_buffering off;")
    assert trouble.startswith("The bytes of chunked bodies do not reach the server")


def test_a_host_that_nobody_tells_is_found(tmp_path: Path, shared: Shared) -> None:
    troubles = troubles_behind_nginx(tmp_path, shared, UNBUFFERED, tls=True)
    assert len(troubles) == 3
    assert troubles[0].startswith("Location begins with http:// although clients come by https://.")
    assert troubles[1].startswith("Location names the host 127.0.0.1:")
    assert troubles[2].startswith("Location has the path /files/")
    assert "nginx: proxy_set_header X-Forwarded-Prefix /PREFIX;" in troubles[2]


def test_a_renamed_host_is_found(tmp_path: Path, shared: Shared) -> None:
    renamed = TOLD.replace("$http_host", "inner.example")
    [trouble] = troubles_behind_nginx(tmp_path, shared, UNBUFFERED + renamed)
    assert trouble.startswith("Location names the host inner.example although clients come to 127.0.0.1:")


def test_a_host_that_is_not_answered_for_is_told_with_the_setting(tmp_path: Path, shared: Shared) -> None:
    troubles = troubles_behind_nginx(tmp_path, shared, UNBUFFERED + TOLD.replace("$http_host", "other.example"))
    assert troubles[0].startswith("OPTIONS at the endpoint is answered 421 (ERR_HOST_NOT_ALLOWED")
    assert "--allowed-hosts" in troubles[0]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("proxy_hide_header Tus-Version;", "There is no Tus-Version in the answer to OPTIONS"),
        ("proxy_hide_header Location;", "There is no Location in the answer to a creation."),
        ("proxy_hide_header Upload-Offset;", "The answer to HEAD has no Upload-Offset."),
        ("add_header Access-Control-Allow-Origin * always;", "Access-Control-Allow-Origin is there twice"),
        ("proxy_hide_header Access-Control-Expose-Headers;", "Pages may not see Location and Upload-Offset"),
        ("proxy_hide_header Access-Control-Allow-Methods;", "The answer to a preflight does not allow PATCH"),
        ("proxy_hide_header Access-Control-Allow-Headers;", "The answer to a preflight does not allow the fields"),
        ("if ($request_method = OPTIONS) { return 204; }", "There is no Tus-Version in the answer to OPTIONS"),
        ("if ($request_method = PATCH) { return 405; }", "A body that is not at its end is answered 405 by something"),
        ("if ($request_method = DELETE) { return 405; }", "DELETE is answered 405"),
        (
            "return 301 https://elsewhere.example$request_uri;",
            "OPTIONS is answered with a redirect to https://elsewhere",
        ),
        ("if ($request_method = POST) { return 307 /x/; }", "A creation is answered with a redirect to"),
        ("client_max_body_size 10m;", "A body of 5.0 GiB is answered 413 by something in front of the server"),
        ("return 502;", "OPTIONS at the endpoint is answered 502"),
    ],
)
def test_what_is_swallowed_refused_or_made_up_is_found(
    tmp_path: Path, shared: Shared, broken: str, sentence: str
) -> None:
    lines = UNBUFFERED.replace("client_max_body_size 0;", "") if "client_max_body_size" in broken else UNBUFFERED
    with behind_nginx(tmp_path, shared, lines + TOLD + broken) as url:
        code, _, troubles = examine(url)
    assert code == 1
    assert any(trouble.startswith(sentence) or sentence in trouble for trouble in troubles), troubles


def test_swallowed_interim_answers_are_found(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(tmp_path / "uploads") as server:
        configuration = (
            "defaults\nmode http\ntimeout connect 5s\ntimeout client 60s\ntimeout server 60s\n"
            f"listen uploads\nbind 127.0.0.1:{port}\nhttp-request del-header Expect\n"
            f"server one 127.0.0.1:{server.port}\n"
        )
        with running(haproxy(tmp_path, configuration), tmp_path, port):
            code, _, [trouble] = examine(f"http://127.0.0.1:{port}/files/")
    assert code == 1
    assert trouble.startswith("Interim answers (100 Continue) do not pass")


def test_a_server_that_is_not_there_is_trouble() -> None:
    code, _, troubles = examine(f"http://127.0.0.1:{free_port()}/files/")
    assert code == 1
    assert "it cannot be reached: Connection refused" in troubles[0]


@pytest.mark.parametrize("host", ["a..invalid", "a" * 64 + ".invalid"])
def test_a_name_that_is_none_is_trouble(host: str) -> None:
    code, _, troubles = examine(f"http://{host}/files/")
    assert code == 1
    assert "it cannot be reached" in troubles[0]


def test_what_a_server_says_does_not_move_the_cursor(tmp_path: Path, shared: Shared) -> None:
    with behind_nginx(tmp_path, shared, "return 502 'no\x1b[2Juploads';") as url:
        assert examine(url)[2][0].startswith("OPTIONS at the endpoint is answered 502 (no[2Juploads)")


def test_a_bad_certificate_is_trouble(tmp_path: Path, shared: Shared) -> None:
    with behind_nginx(tmp_path, shared, UNBUFFERED + TOLD, tls=True) as url:
        result = CliRunner().invoke(main, ["doctor", url])
    assert result.exit_code == 1
    assert "its certificate is not good" in result.output


def test_other_rules_for_names_can_be_met(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--allowed-upload-extensions", ".mp4") as server:
        assert "ERR_EXTENSION_NOT_ALLOWED" in examine(server.url)[2][0]
        assert examine(server.url, "--filename", "probe.mp4")[0] == 0


def test_fields_go_with_every_request(tmp_path: Path, shared: Shared) -> None:
    guard = "if ($http_authorization != 'Bearer x') { return 401; }"
    with behind_nginx(tmp_path, shared, UNBUFFERED + TOLD + guard) as url:
        assert "401" in examine(url)[2][0]
        assert examine(url, "--header", "Authorization: Bearer x")[::2] == (0, [])


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["uploads.example.org"], ["ftp://a.example/"], ["http://"], ["http://a b/"], ["http://a.example:99999/"]),
        *(["http://a.example", "--header", "X"], ["http://a.example", "--header", "X: a\nb"]),
        *(["http://a.example", "--header", "X: é"], ["http://a.example", "--patience", "soon"]),
    ],
)
def test_what_cannot_be_asked_is_a_fault_of_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["doctor", *arguments]).exit_code == 2
