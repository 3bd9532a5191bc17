"""The dialect of the IETF draft "Resumable Uploads for HTTP", in all interop versions that clients in the field speak.

Source: draft-ietf-httpbis-resumable-upload. What differs between versions stands in ``ietf_versions``; here is what
they share, written so that every one of them is served right. Fields are structured ones (RFC 9651): what is malformed
counts for nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tusd_py.errors import (
    AppendTooSmall,
    BadRequest,
    ChecksumMismatch,
    CompletedUpload,
    ContentRefused,
    ExtensionRefused,
    InconsistentLength,
    MethodNotAllowed,
    OffsetMismatch,
    RangeNotSatisfiable,
    UnsupportedDraft,
    UnsupportedMediaType,
    UploadError,
    UploadOverrun,
    UploadTooLarge,
    UploadTooSmall,
)
from tusd_py.protocol import fields as grammar
from tusd_py.protocol import problems, rules
from tusd_py.protocol.digest_fields import parse_content_digest, parse_repr_digest
from tusd_py.protocol.disposition import parse_disposition
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.ietf_versions import NEWEST, VERSIONS, Version
from tusd_py.protocol.messages import Append, Create, Dialect, Reply
from tusd_py.protocol.ranges import build_content_range
from tusd_py.protocol.rules import Limits, expires_at
from tusd_py.protocol.structured import LARGEST, Item, boolean, build_boolean, build_dictionary, build_integer, integer
from tusd_py.upload import Metadata, Upload

APPEND_TYPE = "application/partial-upload"
VERSION_FIELD = "Upload-Draft-Interop-Version"
INTERIM_STATUS = 104

_NO_STORE = ("Cache-Control", "no-store")

# What the application says no to, and not the protocol: nobody need try that again.
_APPLICATION = (ContentRefused, ExtensionRefused)
_LIMITS = (UploadTooLarge, UploadTooSmall, AppendTooSmall)
_LENGTHS = (InconsistentLength, UploadOverrun)

# tus has a status of its own for it.
_STATUS = {UploadOverrun: 400, ChecksumMismatch: 400}

Lines = tuple[tuple[str, str], ...]


class Draft(Dialect):
    """One version of the draft, for what ``limits`` allow.

    ``put`` says whether uploads may be created with PUT, too, and ``names_version`` whether answers name the version:
    they do not where requests name none.
    """

    tells_on_the_way = True

    def __init__(self, version: Version, limits: Limits, *, put: bool = False, names_version: bool = True) -> None:
        self._version = version
        self._limits = limits
        self._named: Lines = ((VERSION_FIELD, build_integer(version.number)),) if names_version else ()
        self.creation_methods = ("POST", "PUT") if put else ("POST",)
        self.retrieval_methods = version.retrieval_methods
        self._terminated = Reply(204, self._named)
        stay = rules.lifetime(limits)
        lifetime = None if stay is None else int(stay.total_seconds())
        self._discovered = Reply(204, (*self._named, *self._limit_field(lifetime), ("Accept-Patch", APPEND_TYPE)))

    def check_request(self, fields: Fields, method: str) -> None:
        """Source: IETF draft -01 to -05, Offset Retrieval and Upload Cancellation."""
        stray = [name for name in self._version.stray_fields if name in fields]
        if stray and method in ("HEAD", "DELETE"):
            raise BadRequest("ERR_STRAY_FIELD", f"{method} must not have {', '.join(stray)}; leave it out")

    def parse_create(self, fields: Fields, size: int | None) -> Create:
        """Source: IETF draft, Upload Creation; Upload Length."""
        is_last = self._is_last(fields)
        declared = _number(fields, "upload-length")
        has_body = size != 0
        binds = self._version.limits_creations
        return Create(
            length=_length(declared, size if is_last else None),
            metadata=_metadata(fields),
            has_body=has_body,
            size=size,
            is_last=is_last,
            ends_by_word=not self._means_length(fields, declared),
            content_digests=parse_content_digest(fields),
            repr_digest=parse_repr_digest(fields),
            most=self._limits.max_append_size if binds else None,
            least=self._limits.min_append_size if binds and has_body and not is_last else 0,
        )

    def parse_append(self, fields: Fields, size: int | None) -> Append:
        """Source: IETF draft, Upload Append; Upload Length."""
        given = grammar.parse_content_type(fields.combined("content-type") or "")
        if self._version.needs_append_type and given != APPEND_TYPE:
            raise UnsupportedMediaType(expected=APPEND_TYPE)
        offset = _number(fields, "upload-offset")
        if offset is None:
            raise BadRequest(
                "ERR_INVALID_OFFSET", "Upload-Offset is missing or no integer; send the offset that HEAD gives"
            )
        is_last = self._is_last(fields)
        binds = self._version.tells_limits
        return Append(
            offset=offset,
            length=_number(fields, "upload-length"),
            size=size,
            is_last=is_last,
            holds_open=not is_last,
            content_digests=parse_content_digest(fields),
            repr_digest=parse_repr_digest(fields),
            most=self._limits.max_append_size if binds else None,
            least=self._limits.min_append_size if binds and not is_last else 0,
            may_repeat=self._version.repeats and is_last,
            removes_overrun=self._version.removes_overrun,
        )

    def begun(self, upload: Upload, location: str, now: datetime) -> Reply | None:
        """Source: IETF draft, Upload Creation, 104 (Upload Resumption Supported)."""
        return Reply(INTERIM_STATUS, (*self._named, ("Location", location), *self._limit_of(upload, now)))

    def progressed(self, offset: int) -> Reply | None:
        """Source: IETF draft, Upload Creation and Upload Append: the offset, and never a location."""
        if not self._version.tells_progress:
            return None
        return Reply(INTERIM_STATUS, (*self._named, ("Upload-Offset", build_integer(offset))))

    def created(self, upload: Upload, location: str, now: datetime) -> Reply:
        """Source: IETF draft, Upload Creation: 201 and ``Location``."""
        if upload.is_complete:
            return self._completed(upload, location)
        located = ("Location", location)
        return Reply(201, (*self._named, located, *self._state(upload), *self._limit_of(upload, now)))

    def appended(self, upload: Upload, location: str) -> Reply:
        """Source: IETF draft, Upload Append."""
        if upload.is_complete:
            return self._completed(upload, location)
        return Reply(self._version.unfinished_status, (*self._named, *self._state(upload)))

    def status(self, upload: Upload, now: datetime, described: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Source: IETF draft, Offset Retrieval. Versions 3 and 4 know 204 alone, so what is ``described`` is not."""
        lines = (*self._named, _NO_STORE, *self._state(upload), *_told_length(upload), *self._limit_of(upload, now))
        return Reply(204, lines)

    def downloaded(self, upload: Upload, head: Reply) -> Reply:
        """Whoever takes a download for an offset retrieval finds what it looks for."""
        return Reply(head.status, (*self._named, *self._state(upload), *_told_length(upload), *head.fields), head.body)

    def terminated(self) -> Reply:
        """Source: IETF draft, Upload Cancellation: 204."""
        return self._terminated

    def discovered(self) -> Reply:
        """Source: IETF draft, Upload-Limit in OPTIONS; -10 and -11: ``Accept-Patch``."""
        return self._discovered

    def refused(self, error: UploadError, method: str) -> Reply:
        """Source: IETF draft, Problem Types and the fields of refusals; RFC 9457."""
        status = self._status_of(error)
        lines: list[tuple[str, str]] = [*self._named, _NO_STORE, ("Content-Type", problems.CONTENT_TYPE)]
        if isinstance(error, MethodNotAllowed):
            lines.append(("Allow", ", ".join(error.allowed)))
        if isinstance(error, UnsupportedMediaType):
            lines.append(("Accept-Patch", error.expected))  # RFC 5789, 2.2
        if isinstance(error, RangeNotSatisfiable):
            lines.append(("Content-Range", build_content_range(None, error.length)))
        if error.retry_after is not None:
            lines.append(("Retry-After", grammar.build_number(error.retry_after)))
        if method in (*self.creation_methods, "PATCH"):
            lines.extend(self._refused_state(error, status, method))
        if isinstance(error, _LIMITS):
            lines.extend(self._limit_field(None))
        type = self._type_of(error)
        members = {}
        if isinstance(error, OffsetMismatch) and type:
            members = {"expected-offset": error.expected, "provided-offset": error.provided}
        return Reply(
            status,
            tuple(lines),
            problems.build_problem(status, str(error), code=error.code, type=type, members=members),
        )

    def _is_last(self, fields: Fields) -> bool:
        """Tell whether the client says that the upload ends with this body."""
        name = "upload-incomplete" if self._version.has_inverse_flag else "upload-complete"
        flag = boolean(fields, name)
        if flag is not None:
            return flag is not self._version.has_inverse_flag
        if self._version.needs_flag:
            raise BadRequest(
                "ERR_INVALID_UPLOAD_COMPLETE",
                "Upload-Complete is missing or no boolean; send ?1 with the last bytes and ?0 before",
            )
        # tus-js-client leaves it out of an empty append that ends an upload of unknown length.
        return True

    def _means_length(self, fields: Fields, declared: int | None) -> bool:
        """Tell whether this client takes all bytes of the length for the end, as in tus.

        tus-js-client 4.3 in Node does: for a file that goes up in several requests, after a cut for example, it never
        says that one of them is the last, and is done when it sent everything. It is known by its metadata, for which
        the draft has no such field.
        """
        return self._version.is_that_of_tus_js_client and declared is not None and "upload-metadata" in fields

    def _completed(self, upload: Upload, location: str) -> Reply:
        """The final answer: the same whether it took one request or many, and whenever it is given again."""
        return Reply(201, (*self._named, ("Location", location), *self._state(upload)))

    def _state(self, upload: Upload) -> Lines:
        return ("Upload-Offset", build_integer(upload.offset)), self._flag(is_complete=upload.is_complete)

    def _flag(self, *, is_complete: bool) -> tuple[str, str]:
        if self._version.has_inverse_flag:
            return "Upload-Incomplete", build_boolean(not is_complete)
        return "Upload-Complete", build_boolean(is_complete)

    def _refused_state(self, error: UploadError, status: int, method: str) -> list[tuple[str, str]]:
        """Return the offset, where there is one, and the flag that go with a refused creation or append."""
        lines = []
        offset = error.expected if isinstance(error, OffsetMismatch) else None
        if error.upload is not None:
            offset = error.upload.offset
        elif method != "PATCH" and status < 500:
            offset = 0  # Nothing was made. Up to version 6 it is asked for with every 4xx.
        if offset is not None:
            lines.append(("Upload-Offset", build_integer(offset)))
        if self._version.flag_tells_who_refuses:
            return [*lines, self._flag(is_complete=isinstance(error, _APPLICATION))]
        return [*lines, self._flag(is_complete=error.upload is not None and error.upload.is_complete)]

    def _status_of(self, error: UploadError) -> int:
        if isinstance(error, CompletedUpload) and self._version.completed_gone and not error.has_bytes:
            return 410
        return _STATUS.get(type(error), error.status)

    def _type_of(self, error: UploadError) -> str:
        if isinstance(error, OffsetMismatch) and self._version.names_mismatch:
            return problems.MISMATCHING_OFFSET
        if isinstance(error, CompletedUpload):
            if self._version.names_completed:
                return problems.COMPLETED_UPLOAD
            return problems.INCONSISTENT_LENGTH if self._version.completed_gone and error.has_bytes else ""
        return problems.INCONSISTENT_LENGTH if isinstance(error, _LENGTHS) and self._version.names_inconsistency else ""

    def _limit_of(self, upload: Upload, now: datetime) -> Lines:
        moment = expires_at(upload, self._limits)
        return self._limit_field(None if moment is None else max(int((moment - now).total_seconds()), 0))

    def _limit_field(self, lifetime: int | None) -> Lines:
        """Return ``Upload-Limit`` with ``lifetime`` in seconds. It says something also where there is no limit."""
        if not self._version.tells_limits:
            return ()
        limits = {
            "max-size": self._limits.max_size,
            "min-size": self._limits.min_size or None,
            "max-append-size": self._limits.max_append_size,
            "min-append-size": self._limits.min_append_size or None,
            self._version.lifetime: lifetime,
        }
        known = {name: Item(min(value, LARGEST)) for name, value in limits.items() if value is not None}
        return (("Upload-Limit", build_dictionary(known or {"min-size": Item(0)})),)


class UnknownDraft(Draft):
    """A version of the draft that is not served, or none that can be read.

    A creation with the whole file is an ordinary upload, of which nothing is told before its end. Anything else could
    not be gone on with.
    """

    # Its version would have to be named.
    tells_on_the_way = False

    def __init__(self, limits: Limits, *, put: bool = False) -> None:
        # An ordinary upload is no append, and bound by no limit on those.
        super().__init__(replace(NEWEST, limits_creations=False), limits, put=put, names_version=False)

    def check_request(self, fields: Fields, method: str) -> None:
        """Refuse all but creations with everything in them."""
        is_whole = boolean(fields, "upload-complete") is True or boolean(fields, "upload-incomplete") is False
        if method not in self.creation_methods or not is_whole:
            raise UnsupportedDraft(served=[version.number for version in VERSIONS])

    def _is_last(self, fields: Fields) -> bool:
        return True


def _number(fields: Fields, name: str) -> int | None:
    value = integer(fields, name)
    return None if value is None or value < 0 else value


def _length(declared: int | None, end: int | None) -> int | None:
    """Return the length of the upload by the field, or by where its only body ends; they must agree."""
    if declared is not None and end is not None and declared != end:
        raise InconsistentLength(
            f"Upload-Length is {declared} and the body ends at {end}; send all of it, or ?0 before"
        )
    return end if declared is None else declared


def _told_length(upload: Upload) -> Lines:
    # A client of tus may have declared more than an integer of the draft can say.
    if upload.length is None or upload.length > LARGEST:
        return ()
    return (("Upload-Length", build_integer(upload.length)),)


def _metadata(fields: Fields) -> Metadata:
    """Return what is said about the file: in the field of tus, which tus-js-client sends, and in those of HTTP.

    In the names that tus clients use, so that hooks and consumers find the same whatever the client speaks.
    """
    told = grammar.parse_metadata(fields.combined("upload-metadata") or "")
    media_type = fields.combined("content-type") or ""
    if grammar.parse_content_type(media_type) == APPEND_TYPE:
        media_type = ""  # tus-js-client puts it on creations with data.
    found = {
        "filename": parse_disposition(fields.combined("content-disposition") or "").encode(),
        "filetype": media_type.encode("latin-1"),
        "contentEncoding": (fields.combined("content-encoding") or "").encode("latin-1"),
    }
    more = [(name, value) for name, value in found.items() if value and told.get(name) is None]
    if not more:
        return told
    field = grammar.build_metadata(more)
    return Metadata(f"{told.field},{field}" if told.field else field, (*told.pairs, *more))
