"""What clients of the form endpoint are told: JSON, and refusals in words that make sense without tus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tusd_py.errors import (
    BodyTimedOut,
    BodyTooSlow,
    MethodNotAllowed,
    ServerStopping,
    StorageFull,
    UploadError,
    UploadInterrupted,
    UploadNotFound,
    UploadTooLarge,
)
from tusd_py.protocol.messages import Reply
from tusd_py.upload import Upload

_JSON = ("Content-Type", "application/json")

# The sentences of these errors send the client to an offset, which it does not know of.
_SENTENCES: Mapping[type[UploadError], str] = {
    BodyTimedOut: "nothing came of the form for too long; send it again",
    BodyTooSlow: "the form came too slowly; send it again over a better connection",
    ServerStopping: "the server is stopping; send the form again in a few seconds",
    StorageFull: "there is no space left for this file; try again later",
    UploadInterrupted: "the upload was ended from elsewhere; send the form again",
    UploadNotFound: "the upload was removed from elsewhere; send the form again",
}

# HTTP has a word for a request that does not come to its end. The one for tus keeps its clients trying.
_STATUSES: Mapping[type[UploadError], int] = {BodyTimedOut: 408, BodyTooSlow: 408, UploadNotFound: 409}

_UNITS = (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("GB", 1000**3), ("MB", 1000**2))


def build_uploaded(uploads: Sequence[Upload], *, as_list: bool, location: str) -> Reply:
    """Say what became of the files: one of them is told alone, unless there may be more.

    ``location`` is the URL of the first.
    """
    told = [_describe(upload) for upload in uploads]
    return Reply(200, (_JSON, ("Location", location)), _dump(told if as_list else told[0]))


def build_refused(error: UploadError) -> Reply:
    """Say why not, and what to send instead."""
    fields = [_JSON]
    if isinstance(error, MethodNotAllowed):
        fields.append(("Allow", ", ".join(error.allowed)))
    if error.retry_after is not None:
        fields.append(("Retry-After", str(error.retry_after)))
    status = _STATUSES.get(type(error), error.status)
    return Reply(status, tuple(fields), _dump({"detail": _sentence(error)}))


def build_words(size: int) -> str:
    """Write a number of bytes for people, exactly: ``5 GiB``, ``500 MB``, ``1001 bytes``."""
    return next((f"{size // factor} {unit}" for unit, factor in _UNITS if size and not size % factor), f"{size} bytes")


def _describe(upload: Upload) -> dict[str, object]:
    stored = f"{upload.id}{upload.extension}"
    return {
        "upload_id": upload.id,
        "filename": upload.metadata.filename or stored,
        "size_bytes": upload.offset,
        # Below the folder of uploads: where that is, is nobody's business.
        "path": stored,
    }


def _sentence(error: UploadError) -> str:
    if isinstance(error, UploadTooLarge):
        return f"the file is larger than the {build_words(error.maximum)} that are accepted; send a smaller one"
    return _SENTENCES.get(type(error), str(error))


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()
