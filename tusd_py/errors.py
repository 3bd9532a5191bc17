"""Everything that can go wrong, each with its HTTP status.

    UploadError
    ├── BadRequest                400  a field is missing or malformed
    │   ├── ExtensionRefused      400  the name's extension is not among the allowed ones
    │   ├── InconsistentLength    400  two lengths of one upload, or an end that is not at its length
    │   ├── UploadTooSmall        400  below the configured minimum
    │   ├── AppendTooSmall        400  fewer bytes than one request must hold
    │   ├── DigestMismatch        400  the request's content is not what Content-Digest says
    │   └── UnsupportedDraft      400  an interop version of the IETF draft that is not served
    ├── CompletedUpload           400  bytes for an upload that is complete
    ├── FinalUpload               403  bytes for an upload that is written by concatenation alone
    ├── OriginRefused             403  a form of a page that may not upload here
    ├── UploadNotFound            404
    ├── MethodNotAllowed          405
    ├── HeadTimedOut              408
    ├── OffsetMismatch            409  the append starts where the upload does not end
    ├── UploadInterrupted         409  a newer request took the upload over
    ├── BodyTimedOut              409  the client sent nothing for too long
    │   └── BodyTooSlow           409  it sent too little
    ├── UploadExpired             410
    ├── UnsupportedVersion        412
    ├── PreconditionFailed        412  the client means another content than there is
    ├── UploadTooLarge            413  above the configured maximum
    │   └── AppendTooLarge        413  more bytes than one request may hold
    ├── UploadOverrun             413  more bytes than the upload's length
    ├── TargetTooLong             414
    ├── UnsupportedMediaType      415  the request's content type
    ├── ContentRefused            415  the first bytes are something that is not allowed
    │   └── WrongRepresentation   400  the whole upload is not what Repr-Digest says
    ├── RangeNotSatisfiable       416  a download of bytes behind the end
    ├── MisdirectedRequest        421  for a host that this server does not answer for
    ├── UploadLocked              423
    ├── FieldTooLarge             431
    ├── HeadTooLarge              431
    ├── ChecksumMismatch          460
    ├── ServerStopping            503
    ├── TooManyConnections        503
    ├── StorageUnavailable        503
    ├── StorageFailed             500  a fault of the storage, told to the operator alone
    ├── UnsupportedCoding         501
    └── StorageFull               507
    ConnectionLost                     nobody is left to answer

An error is built from facts and composes its own sentence, which says what is wrong and what to send instead. The
sentence goes over the wire: it must never hold a path of the server or the text of an internal exception.
"""

from __future__ import annotations

from collections.abc import Sequence

from tusd_py.upload import Upload


class UploadError(Exception):
    """Base of everything that is answered with a status of its own.

    Attributes:
        status: HTTP status of the answer.
        code: the name that clients and logs know the error by; the names are those of tusd where it has one.
        retry_after: seconds after which the same request may succeed, or ``None`` when waiting will not help.
        upload: the upload as it stands after the refusal, where the client may be told of it; ``None`` otherwise.
    """

    status = 500
    code = "ERR_INTERNAL_SERVER_ERROR"
    retry_after: int | None = None
    upload: Upload | None = None


class BadRequest(UploadError):
    """A header field is missing, malformed or contradicts another one; ``hint`` is the whole sentence."""

    status = 400

    def __init__(self, code: str, hint: str) -> None:
        self.code = code
        super().__init__(hint)


class ExtensionRefused(BadRequest):
    """The name in the metadata ends with an extension that is not among ``allowed``."""

    def __init__(self, *, extension: str, allowed: Sequence[str]) -> None:
        self.extension = extension
        self.allowed = tuple(allowed)
        found = f"the extension {extension}" if extension else "a name without an extension"
        super().__init__(
            "ERR_EXTENSION_NOT_ALLOWED",
            f"{found} is not accepted here; send a file with one of {', '.join(self.allowed)}",
        )


class InconsistentLength(BadRequest):
    """What the request says of the upload's length, or where it ends, contradicts what is known; see ``hint``."""

    def __init__(self, hint: str) -> None:
        super().__init__("ERR_INVALID_UPLOAD_LENGTH", hint)


class UploadTooSmall(BadRequest):
    """The upload has, or would have, fewer bytes than ``minimum``."""

    def __init__(self, *, minimum: int) -> None:
        self.minimum = minimum
        super().__init__(
            "ERR_MIN_SIZE_MISSED",
            f"the upload is smaller than the {minimum} bytes that are the least; send a larger file",
        )


class AppendTooSmall(BadRequest):
    """The request holds fewer bytes than ``minimum`` and is not the last one of its upload."""

    def __init__(self, *, minimum: int) -> None:
        self.minimum = minimum
        super().__init__(
            "ERR_MIN_APPEND_SIZE_MISSED",
            f"a request must hold {minimum} bytes at least unless it is the last one; send more in one request",
        )


class DigestMismatch(BadRequest):
    """The digest of the request's content is not that of ``Content-Digest``; nothing of it was kept."""

    def __init__(self) -> None:
        super().__init__(
            "ERR_DIGEST_MISMATCH", "the content does not match Content-Digest and was discarded; send it again"
        )


class UnsupportedDraft(BadRequest):
    """``Upload-Draft-Interop-Version`` is missing, malformed or not among ``served``."""

    def __init__(self, *, served: Sequence[int]) -> None:
        self.served = tuple(served)
        super().__init__(
            "ERR_UNSUPPORTED_INTEROP_VERSION",
            "Upload-Draft-Interop-Version is missing or not served; "
            f"send one of {', '.join(map(str, self.served))}, or speak tus with Tus-Resumable: 1.0.0",
        )


class CompletedUpload(UploadError):
    """An append to an upload that is complete; ``has_bytes`` tells whether it would add some."""

    status = 400
    code = "ERR_UPLOAD_COMPLETED"

    def __init__(self, *, has_bytes: bool) -> None:
        self.has_bytes = has_bytes
        super().__init__("this upload is complete and takes no more; send a new file with POST")


class FinalUpload(UploadError):
    """A request holds bytes for a final upload, which consists of its partials and of nothing else."""

    status = 403
    code = "ERR_MODIFY_FINAL"

    def __init__(self) -> None:
        super().__init__("a final upload takes no bytes, it is made of its partials; send bytes to those")


class OriginRefused(UploadError):
    """A page of an origin that is not allowed sends a form, for which browsers ask nobody beforehand."""

    status = 403
    code = "ERR_ORIGIN_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__(
            "pages of this origin may not upload here; the operator can add the origin to cors_allow_origins"
        )


class UploadNotFound(UploadError):
    """No upload has this id (or it is somebody else's, which is told the same)."""

    status = 404
    code = "ERR_UPLOAD_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no upload here; create one with POST and use the Location of the answer")


class MethodNotAllowed(UploadError):
    """The resource does not know this method; ``allowed`` are the methods that it knows."""

    status = 405
    code = "ERR_METHOD_NOT_ALLOWED"

    def __init__(self, *, allowed: Sequence[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"this method is not served here; use one of {', '.join(self.allowed)}")


class HeadTimedOut(UploadError):
    """The head of a request took longer than ``seconds``."""

    status = 408
    code = "ERR_REQUEST_TIMEOUT"

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the head of the request took longer than {seconds:g} seconds; send it in one go")


class OffsetMismatch(UploadError):
    """An append starts at ``provided`` bytes while the upload ends at ``expected``."""

    status = 409
    code = "ERR_MISMATCHED_OFFSET"

    def __init__(self, *, expected: int, provided: int) -> None:
        self.expected = expected
        self.provided = provided
        super().__init__(f"the upload is at offset {expected}, not {provided}; send the bytes from {expected} on")


class UploadInterrupted(UploadError):
    """A newer request for the same upload asked this one to end; what it received is kept."""

    status = 409
    code = "ERR_UPLOAD_INTERRUPTED"

    def __init__(self) -> None:
        super().__init__("a newer request took this upload over; ask for the offset with HEAD before sending more")


class BodyTimedOut(UploadError):
    """Nothing came for ``seconds`` while the body was awaited; what was received is kept."""

    # 408 would make browsers' clients give up for good; 409 sends them through HEAD and on.
    status = 409
    code = "ERR_READ_TIMEOUT"

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no bytes came for {seconds:g} seconds; ask for the offset with HEAD and go on from there")


class BodyTooSlow(BodyTimedOut):
    """Less than ``rate`` bytes a second came for ``seconds``; what was received is kept."""

    code = "ERR_BODY_TOO_SLOW"

    def __init__(self, *, rate: float, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.rate = rate
        self.args = (
            f"less than {rate:g} bytes a second came for {seconds:g} seconds; ask for the offset with HEAD and go on "
            "from there over a better connection",
        )


class UploadExpired(UploadError):
    """The upload was left unfinished for longer than it may be."""

    status = 410
    code = "ERR_UPLOAD_EXPIRED"

    def __init__(self) -> None:
        super().__init__("this upload was left unfinished for too long and has expired; create a new one with POST")


class UnsupportedVersion(UploadError):
    """``Tus-Resumable`` is missing or names a version that is not served."""

    status = 412
    code = "ERR_UNSUPPORTED_VERSION"

    def __init__(self, *, served: str) -> None:
        super().__init__(f"Tus-Resumable is missing or not served; send Tus-Resumable: {served}")


class PreconditionFailed(UploadError):
    """A download is only wanted of a content that this upload does not have."""

    status = 412
    code = "ERR_PRECONDITION_FAILED"

    def __init__(self) -> None:
        super().__init__("the content is not the one that was asked for; leave If-Match and If-Unmodified-Since out")


class UploadTooLarge(UploadError):
    """The upload is, or would become, larger than ``maximum`` bytes."""

    status = 413
    code = "ERR_MAX_SIZE_EXCEEDED"

    def __init__(self, *, maximum: int) -> None:
        self.maximum = maximum
        super().__init__(f"the upload is larger than the {maximum} bytes that are accepted; send a smaller file")


class AppendTooLarge(UploadTooLarge):
    """The request holds more than the ``maximum`` bytes that one may hold; nothing of it was kept."""

    code = "ERR_MAX_APPEND_SIZE_EXCEEDED"

    def __init__(self, *, maximum: int) -> None:
        self.maximum = maximum
        UploadError.__init__(self, f"a request may hold {maximum} bytes at most; send the file in several requests")


class UploadOverrun(UploadError):
    """The request holds more bytes than the ``length`` of the upload leaves room for."""

    status = 413
    code = "ERR_UPLOAD_SIZE_EXCEEDED"

    def __init__(self, *, length: int) -> None:
        self.length = length
        super().__init__(f"the request goes beyond the upload's length of {length} bytes; send only what is missing")


class TargetTooLong(UploadError):
    """The target of the request holds more than ``maximum`` bytes."""

    status = 414
    code = "ERR_TARGET_TOO_LONG"

    def __init__(self, *, maximum: int) -> None:
        self.maximum = maximum
        super().__init__(f"the URL is longer than {maximum} bytes; send the one that Location gave")


class UnsupportedMediaType(UploadError):
    """The request's ``Content-Type`` is not the one that ``expected`` names."""

    status = 415
    code = "ERR_INVALID_CONTENT_TYPE"

    def __init__(self, *, expected: str) -> None:
        self.expected = expected
        super().__init__(f"the body has the wrong content type; send Content-Type: {expected}")


class ContentRefused(UploadError):
    """The first bytes are positively something else than what was claimed or is allowed."""

    status = 415
    code = "ERR_CONTENT_NOT_ALLOWED"

    def __init__(self, *, extension: str, allowed: Sequence[str]) -> None:
        self.extension = extension
        self.allowed = tuple(allowed)
        claim = f"a {extension} file" if extension else "an accepted file"
        super().__init__(f"the content is not that of {claim}; send real content of {', '.join(self.allowed)}")


class WrongRepresentation(ContentRefused):
    """The digest of the whole upload is not that of ``Repr-Digest``; it is never completed."""

    status = 400
    code = "ERR_REPR_DIGEST_MISMATCH"

    def __init__(self) -> None:
        UploadError.__init__(
            self, "the whole upload does not match Repr-Digest and was removed; send the file again from its start"
        )


class RangeNotSatisfiable(UploadError):
    """A download asks for none of the ``length`` bytes that there are."""

    status = 416
    code = "ERR_RANGE_NOT_SATISFIABLE"

    def __init__(self, *, length: int) -> None:
        self.length = length
        super().__init__(f"the range begins behind the end; ask for some of the {length} bytes that there are")


class MisdirectedRequest(UploadError):
    """The request is for a host that is not among the allowed ones: a page may have bent a name to our address."""

    status = 421
    code = "ERR_HOST_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__(
            "this server does not answer for the host of the request; the operator can add it to allowed_hosts, "
            "or set public_url"
        )


class UploadLocked(UploadError):
    """Another request holds the upload and did not let go in time."""

    status = 423
    code = "ERR_UPLOAD_LOCKED"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("another request is using this upload; try again in a moment")


class FieldTooLarge(UploadError):
    """The line of a header field holds more than ``maximum`` bytes."""

    status = 431
    code = "ERR_FIELD_TOO_LARGE"

    def __init__(self, *, maximum: int) -> None:
        self.maximum = maximum
        super().__init__(f"a header field is larger than {maximum} bytes; send less in it")


class HeadTooLarge(UploadError):
    """The header fields hold more than ``maximum`` bytes together."""

    status = 431
    code = "ERR_HEAD_TOO_LARGE"

    def __init__(self, *, maximum: int) -> None:
        super().__init__(f"the header fields are larger than {maximum} bytes; send less metadata")


class ChecksumMismatch(UploadError):
    """The digest of the request's content is not the one that was announced; nothing of it was kept."""

    status = 460
    code = "ERR_CHECKSUM_MISMATCH"

    def __init__(self) -> None:
        super().__init__("the content does not match Upload-Checksum and was discarded; send it again")


class ServerStopping(UploadError):
    """The server is about to end; what was received is kept."""

    status = 503
    code = "ERR_SERVER_SHUTDOWN"
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("the server is stopping; ask for the offset with HEAD and go on in a few seconds")


class TooManyConnections(UploadError):
    """The server has as many connections as it may, all of them or this client's, and none of them is idle."""

    status = 503
    code = "ERR_TOO_MANY_CONNECTIONS"
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("there are too many connections; close those that you do not need and try again later")


class StorageUnavailable(UploadError):
    """The store cannot write just now, a read-only file system for example."""

    status = 503
    code = "ERR_STORAGE_UNAVAILABLE"
    retry_after = 30

    def __init__(self) -> None:
        super().__init__("the storage cannot be written just now; try again later")


class StorageFailed(UploadError):
    """The store failed in a way that is nobody's fault but ours; the cause is chained and logged, never sent."""

    def __init__(self) -> None:
        super().__init__("the storage failed; try again later")


class UnsupportedCoding(UploadError):
    """The body has a transfer coding other than chunked."""

    status = 501
    code = "ERR_NOT_IMPLEMENTED"

    def __init__(self) -> None:
        super().__init__("this Transfer-Encoding is not served; send a Content-Length, or chunked alone")


class StorageFull(UploadError):
    """There is no room left for the bytes; those of an upload that has begun are kept."""

    status = 507
    code = "ERR_STORAGE_FULL"
    retry_after = 60

    def __init__(self) -> None:
        super().__init__("there is no space left for this upload; try again later, from the offset that HEAD gives")


class ConnectionLost(Exception):
    """The client is gone in the middle of its request. Nobody can be answered; what was received is kept."""

    code = "ERR_CONNECTION_LOST"
