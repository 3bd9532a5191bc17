"""What is allowed, and what follows. Plain functions over values; every dialect asks the same ones.

A check raises before anything is changed, and the order within a check is the order of answers: state before size,
size before checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tusd_py.errors import BadRequest, OffsetMismatch, UploadExpired, UploadOverrun, UploadTooLarge
from tusd_py.protocol.fields import bad_concat
from tusd_py.protocol.messages import Append, Create
from tusd_py.upload import Metadata, Upload

# What is kept of what a client says about its upload, and told again with every HEAD: bytes of the field, and keys.
# Clients send a handful of keys and a KiB at most; proxies and clients refuse answers with fields that are much larger.
MAX_METADATA = 32 * 1024
MAX_METADATA_KEYS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator allows. ``None`` means no limit; ``max_size`` is in bytes.

    An unfinished upload may be left alone for ``partial_expiry``, and be unfinished for ``partial_lifetime`` in all.
    """

    max_size: int | None = None
    partial_expiry: timedelta | None = None
    partial_lifetime: timedelta | None = None


def expires_at(upload: Upload, limits: Limits) -> datetime | None:
    """Return when the upload may be removed, ``None`` when it stays.

    Only unfinished uploads expire, counted from the last byte stored, and from their creation where their lifetime is
    bounded. To the second, because that is what the client is told and removal must never come before that. A partial
    is no end in itself and expires also when it is complete. A final that waits for its partials lives as long as they
    do.

    Source: tus 1.0.0, Expiration.
    """
    if upload.is_final or (upload.is_complete and not upload.is_partial):
        return None
    left = None if limits.partial_expiry is None else upload.written_at + limits.partial_expiry
    moments = [moment for moment in (left, _lifetime_ends_at(upload, limits)) if moment is not None]
    return min(moments).replace(microsecond=0) if moments else None


def is_expired(upload: Upload, limits: Limits, now: datetime) -> bool:
    """Tell whether the upload was left unfinished for too long."""
    return _is_over(expires_at(upload, limits), upload, now)


def has_outlived(upload: Upload, limits: Limits, now: datetime) -> bool:
    """Tell whether the upload has been unfinished for longer than any may be, also if bytes still come."""
    return _is_over(_lifetime_ends_at(upload, limits), upload, now)


def _lifetime_ends_at(upload: Upload, limits: Limits) -> datetime | None:
    if limits.partial_lifetime is None or upload.is_final or upload.is_complete:
        return None
    return upload.created_at + limits.partial_lifetime


def _is_over(moment: datetime | None, upload: Upload, now: datetime) -> bool:
    # An upload that is whole without its mark lacks only that: a crash came in between. It is finished, not expired.
    is_unmarked = upload.is_whole and not upload.is_complete
    return moment is not None and moment.replace(microsecond=0) < now.replace(microsecond=0) and not is_unmarked


def check_create(create: Create, limits: Limits) -> None:
    """Decide a creation before anything of it exists.

    Source: tus 1.0.0, Creation and Creation With Upload.

    Raises:
        UploadTooLarge: the length, or the body of a deferred one, is above the maximum (413).
        UploadOverrun: the body is known to be longer than the upload (413).
        BadRequest: there is too much metadata (400).
    """
    _check_metadata(create.metadata)
    _check_length(create.length, limits)
    _check_size(create.size, room(0, create.length, limits), create.length, limits)


def check_members(partials: Sequence[Upload], limits: Limits, now: datetime) -> int | None:
    """Decide a concatenation of ``partials``, and return its length; ``None`` while that of a partial is deferred.

    Source: tus 1.0.0, Concatenation.

    Raises:
        BadRequest: one of them is no partial (400).
        UploadExpired: one of them is past ``expires_at`` (410).
        UploadTooLarge: together they are above the maximum (413).
    """
    for partial in partials:
        if not partial.is_partial:
            raise bad_concat("names an upload that is no partial")
        if is_expired(partial, limits, now):
            raise UploadExpired
    lengths = [partial.length for partial in partials]
    _check_length(sum(length or 0 for length in lengths), limits)
    return None if None in lengths else sum(length or 0 for length in lengths)


def _check_metadata(metadata: Metadata) -> None:
    if len(metadata.field) > MAX_METADATA or len(metadata.pairs) > MAX_METADATA_KEYS:
        raise BadRequest(
            "ERR_METADATA_TOO_LARGE",
            f"Upload-Metadata is too large; send {MAX_METADATA} bytes with {MAX_METADATA_KEYS} keys at most",
        )


def check_append(upload: Upload, append: Append, limits: Limits, now: datetime) -> Upload:
    """Decide an append before its first byte is read, and return the upload with the length that then holds.

    Source: tus 1.0.0, PATCH and Creation Defer Length.

    Raises:
        UploadExpired: ``now`` is past ``expires_at`` (410).
        OffsetMismatch: ``append.offset`` is not where the upload ends (409).
        BadRequest: another length than the known one, or one below the offset, is declared (400).
        UploadTooLarge: the declared length or the request is above the maximum (413).
        UploadOverrun: the request is known to hold more bytes than are missing (413).
    """
    if is_expired(upload, limits, now):
        raise UploadExpired
    if append.offset != upload.offset:
        raise OffsetMismatch(expected=upload.offset, provided=append.offset)
    settled = settle_length(upload, append.length, limits)
    _check_size(append.size, room(upload.offset, settled.length, limits), settled.length, limits)
    return settled


def settle_length(upload: Upload, declared: int | None, limits: Limits) -> Upload:
    """Return the upload with its length as it is after ``declared`` (``None``: nothing was declared).

    A length never changes once it is set. The same value again is accepted: clients repeat it when they retry.

    Source: tus 1.0.0, Creation Defer Length.
    """
    if declared is None or declared == upload.length:
        return upload
    if upload.length is not None:
        raise BadRequest("ERR_INVALID_UPLOAD_LENGTH", f"the length is {upload.length} already; leave Upload-Length out")
    if declared < upload.offset:
        raise BadRequest(
            "ERR_INVALID_UPLOAD_LENGTH",
            f"Upload-Length is below the {upload.offset} bytes already stored; send the length of the whole upload",
        )
    _check_length(declared, limits)
    return replace(upload, length=declared)


def room(offset: int, length: int | None, limits: Limits) -> int | None:
    """Return how many bytes may follow ``offset``, ``None`` when nothing bounds them."""
    bound = limits.max_size if length is None else length
    return None if bound is None else max(bound - offset, 0)


def overrun(length: int | None, limits: Limits) -> UploadOverrun | UploadTooLarge:
    """Return the error for bytes beyond the room: they pass the upload's length, or the maximum while it has none."""
    if length is not None:
        return UploadOverrun(length=length)
    assert limits.max_size is not None, "without a length, only the maximum bounds an upload"
    return UploadTooLarge(maximum=limits.max_size)


def _check_length(length: int | None, limits: Limits) -> None:
    if length is not None and limits.max_size is not None and length > limits.max_size:
        raise UploadTooLarge(maximum=limits.max_size)


def _check_size(size: int | None, room: int | None, length: int | None, limits: Limits) -> None:
    if size is not None and room is not None and size > room:
        raise overrun(length, limits)
