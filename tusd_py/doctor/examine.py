"""Looks at a tus server from where its clients are, and tells what stands between: ``tusd-py doctor URL``.

It does what clients do, also what they do by accident, and compares the answers with those of a server that is reached
directly. Nothing here knows our own server: it needs the standard library and tus 1.0 alone. What it creates it
removes again, where the server lets it.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from tusd_py.doctor.wire import Answer, Request, Unreachable, Wire

KIB = 1024

# An upload of which half is sent. Below the 1 MB that nginx takes by default, so that a limit does not hide a buffer,
# and far above what programs keep for a moment because they read and write in blocks.
PROBE = 512 * KIB

# The body whose head alone is sent to see who refuses it: what phones film, and what most limits would not let pass.
LARGE = 5 * KIB**3

# One frame of an MP3 file that holds silence.
FRAME = b"\xff\xfb\x90\x64" + bytes(413)

# What is looked at again, or would be blamed wrongly, has so many times the patience.
MORE = 3

# Seconds between two looks at an offset.
TICK = 0.1

TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}
ORIGIN = {"Origin": "https://doctor.invalid"}
PREFLIGHT = {
    **ORIGIN,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type, tus-resumable, upload-length, upload-metadata, upload-offset",
}

BUFFERS = (
    "nginx: proxy_request_buffering off; proxy_http_version 1.1;",
    "Caddy: remove buffer_requests and request_buffers from reverse_proxy",
    "HAProxy: remove option http-buffer-request",
)
LIMITS = (
    "nginx: client_max_body_size 0;",
    "Caddy: remove request_body { max_size … }",
    "HAProxy: remove http-request deny rules on req.body_size and content-length",
)
HOSTS = (
    "nginx: proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Host $http_host;",
    "Caddy: remove header_up Host from reverse_proxy",
    "HAProxy: http-request set-header X-Forwarded-Host %[req.hdr(host)]",
    "tusd-py: name the public host in --allowed-hosts, or the whole address in --public-url",
)
SCHEMES = (
    "nginx: proxy_set_header X-Forwarded-Proto $scheme;",
    "Caddy: remove header_up X-Forwarded-Proto from reverse_proxy",
    "HAProxy: http-request set-header X-Forwarded-Proto https",
    "tusd-py: name a proxy on another machine in --trusted-proxies",
)
PREFIXES = (
    "nginx: proxy_set_header X-Forwarded-Prefix /PREFIX;",
    "Caddy: header_up X-Forwarded-Prefix /PREFIX",
    "HAProxy: http-request set-header X-Forwarded-Prefix /PREFIX",
    "tusd-py: or --root-path /PREFIX",
)
FIELDS = (
    "nginx: remove proxy_hide_header",
    "Caddy: remove header_down and header lines that begin with a minus",
    "HAProxy: remove http-response del-header",
)
METHODS = (
    "nginx: remove limit_except",
    "Caddy: remove method from the matcher",
    "HAProxy: remove http-request deny rules on method",
)
CORS = (
    "nginx: remove add_header Access-Control-… and answers of its own to OPTIONS",
    "Caddy: remove header Access-Control-… and respond to OPTIONS",
    "HAProxy: remove http-response add-header Access-Control-… and http-request return",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``advice`` has a line for each program that may be the cause of a trouble."""

    is_trouble: bool
    sentence: str
    advice: Sequence[str] = ()


class Hopeless(Exception):
    """Something is so wrong that there is nothing more to look at."""


def well(sentence: str) -> Finding:
    return Finding(False, sentence)


def trouble(sentence: str, advice: Sequence[str] = ()) -> Finding:
    return Finding(True, sentence, advice)


def examine(url: str, fields: Mapping[str, str], *, filename: str, verify: bool, patience: float) -> Iterator[Finding]:
    """Look at the endpoint ``url`` and tell what is found, one thing after the other.

    ``fields`` go with every request (credentials, for example), and uploads are called ``filename``. ``patience`` is
    how many seconds a piece of a body has to reach the server, and a refusal to come back.
    """
    doctor = _Doctor(url, Wire(fields, verify=verify), filename, patience)
    try:
        for look in (
            doctor.look_at_endpoint,
            doctor.look_at_preflight,
            doctor.look_at_creation,
            doctor.look_at_sized_bodies,
            doctor.look_at_chunked_bodies,
            doctor.look_at_large_bodies,
            doctor.look_at_interim_answers,
        ):
            yield from _or_unreachable(look)
    except Hopeless:
        yield trouble("Nothing more can be looked at before this is put right.")
    finally:
        left = doctor.clean_up()
    yield from left


def _or_unreachable(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Unreachable as error:
        yield trouble(f"While looking at {look.__name__.removeprefix('look_at_').replace('_', ' ')}: {error}.")
        if look.__name__ == "look_at_endpoint":
            raise Hopeless from None


class _Doctor:
    def __init__(self, url: str, wire: Wire, filename: str, patience: float) -> None:
        self._url = url
        self._wire = wire
        self._patience = patience
        self._metadata = f"filename {b64encode(filename.encode()).decode()}"
        # Servers look at names and first bytes. Nobody recognises zeros, or takes them for something else than a name.
        self._content = FRAME if filename.endswith(".mp3") else bytes(KIB)
        self._created: list[str] = []
        self._largest = LARGE
        self._can_terminate = True

    def look_at_endpoint(self) -> Iterator[Finding]:
        answer = self._wire.ask("OPTIONS", self._url, TUS)
        if is_redirect(answer):
            yield from self._redirected("OPTIONS", answer)
            raise Hopeless
        if answer.status >= 400:
            advice = HOSTS if answer.status == 421 else ()
            yield trouble(f"OPTIONS at the endpoint is answered {answer}.", advice)
            raise Hopeless
        if "tus-version" not in answer.fields:
            yield trouble(
                "There is no Tus-Version in the answer to OPTIONS: no tus server, or it is swallowed.", FIELDS
            )
        else:
            yield well(f"A tus server of version {answer.fields['tus-version']} is there.")
        self._can_terminate = "termination" in answer.fields.get("tus-extension", "termination")
        self._largest = min(self._largest, number_of(answer, "tus-max-size") or self._largest)

    def look_at_preflight(self) -> Iterator[Finding]:
        answer = self._wire.ask("OPTIONS", self._url, PREFLIGHT)
        origin = answer.fields.get("access-control-allow-origin")
        if is_redirect(answer):
            yield from self._redirected("A preflight", answer)
        elif answer.status >= 300:
            yield trouble(f"A preflight of a browser is answered {answer}; pages of other origins cannot upload.", CORS)
        elif origin is None:
            yield well("Pages of other origins may not upload (CORS is off); that may be meant so.")
        elif "," in origin:
            yield trouble("Access-Control-Allow-Origin is there twice; browsers refuse both.", CORS)
        else:
            yield from self._allowed(answer)

    def _allowed(self, answer: Answer) -> Iterator[Finding]:
        methods = words_of(answer, "access-control-allow-methods")
        names = words_of(answer, "access-control-allow-headers")
        wanted = set(PREFLIGHT["Access-Control-Request-Headers"].split(", "))
        if not {"patch", "*"} & methods:
            yield trouble("The answer to a preflight does not allow PATCH; browsers cannot send bytes.", CORS)
        elif "*" not in names and wanted - names:
            missing = ", ".join(sorted(wanted - names))
            yield trouble(f"The answer to a preflight does not allow the fields {missing}.", CORS)
        else:
            yield well("Preflights of browsers pass.")

    def look_at_creation(self) -> Iterator[Finding]:
        answer = self._create(PROBE)
        if is_redirect(answer):
            yield from self._redirected("A creation", answer)
            raise Hopeless
        if answer.status != 201:
            yield self._refused("A creation", answer)
            raise Hopeless
        location = answer.fields.get("location")
        if location is None:
            yield trouble("There is no Location in the answer to a creation.", FIELDS)
            raise Hopeless
        yield from self._judge(location)
        if "access-control-allow-origin" in answer.fields:
            exposed = words_of(answer, "access-control-expose-headers")
            if "*" not in exposed and not {"location", "upload-offset"} <= exposed:
                yield trouble("Pages may not see Location and Upload-Offset (Access-Control-Expose-Headers).", CORS)
        yield from self._look_at_status()

    def _judge(self, location: str) -> Iterator[Finding]:
        """Compare the URL that clients are given with the one that we have been given."""
        given, ours = urlsplit(urljoin(self._url, location)), urlsplit(self._url)
        findings = []
        if given.scheme != ours.scheme:
            findings.append(
                trouble(f"Location begins with {given.scheme}:// although clients come by {ours.scheme}://.", SCHEMES)
            )
        if authority_of(given, ours.scheme) != authority_of(ours, ours.scheme):
            findings.append(
                trouble(f"Location names the host {given.netloc} although clients come to {ours.netloc}.", HOSTS)
            )
        base = ours.path.rstrip("/")
        if not given.path.startswith(f"{base}/"):
            findings.append(
                trouble(f"Location has the path {given.path}, which is not below {base}/: a prefix got lost.", PREFIXES)
            )
        yield from findings or [well("Location is where clients can go on.")]

    def _look_at_status(self) -> Iterator[Finding]:
        answer = self._wire.ask("HEAD", self._created[0], TUS)
        missing = [
            name for name in ("Upload-Offset", "Upload-Length", "Tus-Resumable") if name.lower() not in answer.fields
        ]
        if is_redirect(answer):
            yield from self._redirected("HEAD", answer)
        elif answer.status not in (200, 204):
            yield trouble(f"HEAD at the new upload is answered {answer}.", METHODS)
        elif missing:
            yield trouble(f"The answer to HEAD has no {' and no '.join(missing)}.", FIELDS)
        else:
            yield well("The fields of tus pass.")
            return
        raise Hopeless

    def look_at_sized_bodies(self) -> Iterator[Finding]:
        yield from self._look_at_bodies({"Content-Length": str(PROBE)}, self._probe(PROBE // 2), "")

    def look_at_chunked_bodies(self) -> Iterator[Finding]:
        """Bodies whose end only shows, which nginx buffers unless it speaks HTTP/1.1 to the server."""
        piece = b"%x\r\n%b\r\n" % (PROBE // 2, self._probe(PROBE // 2))
        yield from self._look_at_bodies({"Transfer-Encoding": "chunked"}, piece, "chunked ")

    def _look_at_bodies(self, framing: Mapping[str, str], piece: bytes, kind: str) -> Iterator[Finding]:
        """Cut a body halfway and see what has arrived: once, and again with more patience before anybody is blamed."""
        for patience in (self._patience, self._patience * MORE):
            created = self._create(PROBE)
            if created.status != 201:
                yield self._refused("A creation", created)
                return
            url = self._created[-1]
            with Request(self._wire, "PATCH", url, {**APPEND, "Upload-Offset": "0", **framing}) as request:
                request.send(piece)
                if request.is_answered(patience):
                    yield self._refused(f"A {kind}body that is not at its end", request.answer())
                    return
            if self._settled_offset(url, patience):
                yield well(f"The bytes of {kind}bodies reach the server as they are sent.")
                return
        yield trouble(
            f"The bytes of {kind}bodies do not reach the server before the body is whole: something in between buffers "
            "them, and they are lost when a client is cut off.",
            BUFFERS,
        )

    def _settled_offset(self, url: str, patience: float) -> int:
        """Return the offset once the server has found out about a cut; 0 when nothing arrives."""
        deadline = time.monotonic() + patience
        while True:
            answer = self._wire.ask("HEAD", url, TUS)
            offset = number_of(answer, "upload-offset")
            if offset or time.monotonic() > deadline:
                return offset
            time.sleep(TICK)

    def look_at_large_bodies(self) -> Iterator[Finding]:
        size = self._largest
        while (answer := self._create(size)).status in (413, 507) and answer.is_from_tus and size > PROBE:
            size //= 2
        if answer.status != 201:
            yield self._refused(f"A creation of {words(size)}", answer)
            return
        url = self._created[-1]
        fields = {**APPEND, "Upload-Offset": "0", "Content-Length": str(size)}
        with Request(self._wire, "PATCH", url, fields) as request:
            # Some refuse by the head, some by the first bytes.
            request.send(self._probe(KIB))
            if not request.is_answered(self._patience):
                yield well(f"A body of {words(size)} is not refused.")
                return
            answer = request.answer()
        yield self._refused(f"A body of {words(size)}", answer)

    def look_at_interim_answers(self) -> Iterator[Finding]:
        if self._create(PROBE).status != 201:
            return
        fields = {**APPEND, "Upload-Offset": "0", "Content-Length": str(PROBE), "Expect": "100-continue"}
        with Request(self._wire, "PATCH", self._created[-1], fields) as request:
            is_told = request.is_answered(self._patience * MORE) and b" 100 " in request.first_line() + b" "
        if is_told:
            yield well("Interim answers (100 Continue) pass.")
        else:
            yield trouble(
                "Interim answers (100 Continue) do not pass: clients that ask before they send wait for a second, and "
                "send what will be refused.",
                ("pass on Expect and interim answers; most proxies do when request buffering is off",),
            )

    def _create(self, length: int) -> Answer:
        fields = {**TUS, **ORIGIN, "Upload-Length": str(length), "Upload-Metadata": self._metadata}
        answer = self._wire.ask("POST", self._url, fields, b"")
        location = answer.fields.get("location")
        if answer.status == 201 and location is not None:
            # Where clients are sent may be wrong, the id is right: we go on below the address that we were given.
            name = urlsplit(location).path.rstrip("/").rpartition("/")[2]
            self._created.append(f"{self._url.rstrip('/')}/{name}")
        return answer

    def _refused(self, what: str, answer: Answer) -> Finding:
        if answer.status == 413 and not answer.is_from_tus:
            return trouble(
                f"{what} is answered 413 by something in front of the server, which itself would take it.",
                LIMITS,
            )
        if answer.status in (405, 501) and not answer.is_from_tus:
            return trouble(f"{what} is answered {answer} by something in front of the server.", METHODS)
        advice = HOSTS if answer.status == 421 else ()
        hint = "; give credentials with --header" if answer.status in (401, 403) else ""
        return trouble(f"{what} is answered {answer}{hint}.", advice)

    def _redirected(self, what: str, answer: Answer) -> Iterator[Finding]:
        target = answer.fields.get("location", "nowhere")
        yield trouble(
            f"{what} is answered with a redirect to {target}, which clients and preflights do not follow.",
            ("give clients the address that it points to, or take the redirect away for uploads",),
        )

    def _probe(self, size: int) -> bytes:
        """Return the first ``size`` bytes of a file."""
        return (self._content * (size // len(self._content) + 1))[:size]

    def clean_up(self) -> list[Finding]:
        """Remove what was created and tell what is left."""
        left = []
        for url in self._created:
            try:
                answer = self._wire.ask("DELETE", url, TUS)
            except Unreachable as error:
                left.append(trouble(f"{url} could not be removed: {error}."))
                continue
            if answer.status in (204, 404, 410):
                continue
            if not self._can_terminate:
                left.append(well(f"{url} is left to expire; the server does not offer termination."))
            else:
                left.append(trouble(f"DELETE is answered {answer}, and {url} is left behind.", METHODS))
        return left


def words(size: int) -> str:
    return f"{size / KIB**2:.1f} MiB" if size < KIB**3 else f"{size / KIB**3:.1f} GiB"


def is_redirect(answer: Answer) -> bool:
    return answer.status in (301, 302, 303, 307, 308)


def number_of(answer: Answer, name: str) -> int:
    """Return the number that a field holds, 0 where it holds none."""
    text = answer.fields.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def words_of(answer: Answer, name: str) -> set[str]:
    return {word.strip().lower() for word in answer.fields.get(name, "").split(",")}


def authority_of(url: SplitResult, scheme: str) -> tuple[str, int | None]:
    """Return host and port; where the scheme is wrong its usual port is no second fault."""
    usual = {"http": 80, "https": 443}
    port = url.port if url.port != usual.get(url.scheme) else None
    return (url.hostname or "").lower(), port if port != usual.get(scheme) else None
