"""The dialect tus 1.0.0: its fields and its answers. Source: https://tus.io/protocols/resumable-upload, 1.0.0."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tusd_py.errors import (
    BadRequest,
    FinalUpload,
    MethodNotAllowed,
    OffsetMismatch,
    RangeNotSatisfiable,
    UnsupportedMediaType,
    UnsupportedVersion,
    UploadError,
)
from tusd_py.protocol import fields as grammar
from tusd_py.protocol.digest_fields import parse_content_digest, parse_repr_digest
from tusd_py.protocol.digests import Checksum, bad_trailer, parse_checksum
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.messages import Append, Create, Dialect, Reply
from tusd_py.protocol.ranges import build_content_range
from tusd_py.protocol.rules import Limits, expires_at, lifetime
from tusd_py.upload import Upload

VERSION = "1.0.0"
APPEND_TYPE = "application/offset+octet-stream"

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)
_CONCATENATION = frozenset({"concatenation", "concatenation-unfinished"})

# The text binds the client alone where the version is missing, and HEAD and GET harm nobody.
_VERSION_OPTIONAL = frozenset({"HEAD", "GET"})

_VERSION_FIELD = ("Tus-Resumable", VERSION)
_NO_STORE = ("Cache-Control", "no-store")


class Tus(Dialect):
    """tus 1.0.0 for what ``limits`` allow and ``algorithms`` (names of checksums, best first) can verify.

    ``concatenation`` says whether partials and finals are taken, ``trailers`` whether the server hands over the fields
    behind a body.
    """

    def __init__(
        self, limits: Limits, algorithms: Sequence[str], *, concatenation: bool = True, trailers: bool = False
    ) -> None:
        self._limits = limits
        self._concatenation = concatenation
        self._trailers = trailers
        missing = frozenset() if concatenation else _CONCATENATION
        if not trailers:
            missing |= {"checksum-trailer"}
        if lifetime(limits) is None:
            missing |= {"expiration"}
        extensions = [name for name in EXTENSIONS if name not in missing]
        discovery = [
            _VERSION_FIELD,
            ("Tus-Version", VERSION),
            ("Tus-Extension", grammar.build_list(extensions)),
            ("Tus-Checksum-Algorithm", grammar.build_list(algorithms)),
        ]
        if limits.max_size is not None:
            discovery.append(("Tus-Max-Size", grammar.build_number(limits.max_size)))
        self._discovered = Reply(204, tuple(discovery))

    def check_request(self, fields: Fields, method: str) -> None:
        """Refuse a version that is not served, and a missing one where something could change.

        Source: tus 1.0.0, Tus-Resumable. OPTIONS never comes here.
        """
        version = fields.single("tus-resumable")
        if version == VERSION or (version is None and method in _VERSION_OPTIONAL):
            return
        raise UnsupportedVersion(served=VERSION)

    def parse_create(self, fields: Fields, size: int | None) -> Create:
        """Source: tus 1.0.0, Creation, Creation With Upload, Creation Defer Length, Checksum, Concatenation."""
        concat = self._concat(fields)
        urls = grammar.parse_concat(concat) if concat else ()
        has_body = size != 0
        if urls:
            return _parse_final(fields, concat, urls, has_body=has_body)
        # Without a body the content type means nothing; clients send their defaults (curl its form type).
        if has_body:
            _check_content_type(fields)
        length = _length(fields)
        deferred = fields.single("upload-defer-length")
        if deferred is not None:
            grammar.parse_defer_length(deferred)
            if length is not None:
                raise BadRequest(
                    "ERR_AMBIGUOUS_UPLOAD_LENGTH",
                    "Upload-Length and Upload-Defer-Length exclude each other; send one of them",
                )
        elif length is None:
            raise BadRequest(
                "ERR_INVALID_UPLOAD_LENGTH",
                "the length is missing; send Upload-Length, or Upload-Defer-Length: 1 when it is not known yet",
            )
        return Create(
            length=length,
            metadata=grammar.parse_metadata(fields.combined("upload-metadata") or ""),
            has_body=has_body,
            size=size,
            checksum=_checksum(fields),
            checksum_follows=self._checksum_follows(fields, size),
            content_digests=parse_content_digest(fields),
            repr_digest=parse_repr_digest(fields),
            concat=concat,
            is_partial=bool(concat),
        )

    def parse_append(self, fields: Fields, size: int | None) -> Append:
        """Source: tus 1.0.0, PATCH, Creation Defer Length, Checksum."""
        _check_content_type(fields)
        offset = fields.single("upload-offset")
        if offset is None:
            raise BadRequest("ERR_INVALID_OFFSET", "Upload-Offset is missing; send the offset that HEAD gives")
        return Append(
            offset=grammar.parse_number(offset, field="Upload-Offset", code="ERR_INVALID_OFFSET"),
            length=_length(fields),
            size=size,
            checksum=_checksum(fields),
            checksum_follows=self._checksum_follows(fields, size),
            content_digests=parse_content_digest(fields),
            repr_digest=parse_repr_digest(fields),
        )

    def parse_trailers(self, trailers: Fields) -> Checksum | None:
        """Source: tus 1.0.0, Checksum, Trailer; RFC 9110, 6.5."""
        return _checksum(trailers)

    def created(self, upload: Upload, location: str, now: datetime) -> Reply:
        """Source: tus 1.0.0, Creation: 201 and ``Location``; Creation With Upload: ``Upload-Offset``."""
        return Reply(201, (_VERSION_FIELD, ("Location", location), *self._progress(upload)))

    def appended(self, upload: Upload, location: str) -> Reply:
        """Source: tus 1.0.0, PATCH: 204 and the new offset; Expiration: the moment, in every answer to a PATCH."""
        return Reply(204, (_VERSION_FIELD, *self._progress(upload)))

    def status(self, upload: Upload, now: datetime, described: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Source: tus 1.0.0, HEAD; Concatenation: ``Upload-Concat``, and no offset of what waits for its partials."""
        told = [("Upload-Concat", upload.concat)] if upload.concat else []
        if upload.metadata.field:
            told.append(("Upload-Metadata", upload.metadata.field))
        lines = (_VERSION_FIELD, _NO_STORE, *self._progress(upload), *_told_length(upload), *told, *described)
        return Reply(200, lines)

    def downloaded(self, upload: Upload, head: Reply) -> Reply:
        """Source: tus 1.0.0, Tus-Resumable: in every answer. GET itself is not part of it."""
        return Reply(head.status, (_VERSION_FIELD, *head.fields), head.body)

    def terminated(self) -> Reply:
        """Source: tus 1.0.0, Termination: 204."""
        return Reply(204, (_VERSION_FIELD,))

    def discovered(self) -> Reply:
        """Source: tus 1.0.0, OPTIONS."""
        return self._discovered

    def refused(self, error: UploadError, method: str) -> Reply:
        """One line of text: the code that programs look for, and a sentence for people."""
        lines = [_VERSION_FIELD, _NO_STORE, ("Content-Type", "text/plain; charset=utf-8")]
        if isinstance(error, UnsupportedVersion):
            lines.append(("Tus-Version", VERSION))
        if isinstance(error, MethodNotAllowed):
            lines.append(("Allow", ", ".join(error.allowed)))
        if isinstance(error, RangeNotSatisfiable):
            lines.append(("Content-Range", build_content_range(None, error.length)))
        if error.retry_after is not None:
            lines.append(("Retry-After", grammar.build_number(error.retry_after)))
        if error.upload is not None:
            lines.extend(self._progress(error.upload))
        elif isinstance(error, OffsetMismatch):
            lines.append(("Upload-Offset", grammar.build_number(error.expected)))
        return Reply(error.status, tuple(lines), f"{error.code}: {error}\n".encode())

    def _progress(self, upload: Upload) -> list[tuple[str, str]]:
        fields = [] if upload.is_pending else [("Upload-Offset", grammar.build_number(upload.offset))]
        moment = expires_at(upload, self._limits)
        if moment is not None:
            fields.append(("Upload-Expires", grammar.build_http_date(moment)))
        return fields

    def _checksum_follows(self, fields: Fields, size: int | None) -> bool:
        """Tell whether the request announces its checksum for the end of its body.

        What cannot be verified is not to be received. Source: tus 1.0.0, Checksum, Trailer; RFC 9110, 6.6.2.
        """
        if "trailer" not in fields:
            return False
        if "upload-checksum" not in (name.lower() for name in grammar.parse_list(fields.combined("trailer") or "")):
            return False
        if not self._trailers:
            raise bad_trailer("cannot be read by this server; send Upload-Checksum as a field before the body")
        if size is not None:
            raise bad_trailer("needs a chunked body; send Transfer-Encoding: chunked, or the field before the body")
        if "upload-checksum" in fields:
            raise bad_trailer("comes beside one before the body; send one of them")
        return True

    def _concat(self, fields: Fields) -> str:
        """Return ``Upload-Concat`` as received, ``""`` when it is not there."""
        concat = fields.single("upload-concat")
        if concat is None:
            return ""
        if not self._concatenation:
            raise BadRequest(
                "ERR_CONCATENATION_UNSUPPORTED", "uploads are not concatenated here; send the file as one upload"
            )
        if not concat:
            raise grammar.bad_concat("is empty")
        return concat


def _parse_final(fields: Fields, concat: str, urls: tuple[str, ...], *, has_body: bool) -> Create:
    """Source: tus 1.0.0, Concatenation: the client MUST NOT send the length of a final."""
    if "upload-length" in fields or "upload-defer-length" in fields:
        raise BadRequest(
            "ERR_INVALID_UPLOAD_LENGTH",
            "a final upload has the length of its partials; leave Upload-Length and Upload-Defer-Length out",
        )
    metadata = grammar.parse_metadata(fields.combined("upload-metadata") or "")
    if has_body:
        raise FinalUpload
    return Create(length=None, metadata=metadata, concat=concat, final_of=urls, repr_digest=parse_repr_digest(fields))


def _told_length(upload: Upload) -> list[tuple[str, str]]:
    if upload.length is not None:
        return [("Upload-Length", grammar.build_number(upload.length))]
    # Nobody will declare the length of a final: it follows from its partials.
    return [] if upload.is_final else [("Upload-Defer-Length", grammar.build_defer_length())]


def _check_content_type(fields: Fields) -> None:
    given = fields.single("content-type") or ""
    if grammar.parse_content_type(given) != APPEND_TYPE:
        raise UnsupportedMediaType(expected=APPEND_TYPE)


def _length(fields: Fields) -> int | None:
    given = fields.single("upload-length")
    if given is None:
        return None
    return grammar.parse_number(given, field="Upload-Length", code="ERR_INVALID_UPLOAD_LENGTH")


def _checksum(fields: Fields) -> Checksum | None:
    given = fields.single("upload-checksum")
    return None if given is None else parse_checksum(given)
