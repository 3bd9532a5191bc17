"""What is allowed, and what follows. Plain functions over values; every dialect asks the same ones.

A check raises before anything is changed, and the order within a check is the order of answers: state before size,
size before checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tusd_py.errors import (
    AppendTooLarge,
    AppendTooSmall,
    BadRequest,
    CompletedUpload,
    InconsistentLength,
    OffsetMismatch,
    UploadError,
    UploadExpired,
    UploadOverrun,
    UploadTooLarge,
    UploadTooSmall,
)
from tusd_py.protocol.digest_fields import settle_digests
from tusd_py.protocol.fields import bad_concat
from tusd_py.protocol.messages import Append, Create
from tusd_py.upload import Metadata, Upload

# What is kept of what a client says about its upload, and told again with every HEAD: bytes of the field, and keys.
# Clients send a handful of keys and a KiB at most; proxies and clients refuse answers with fields that are much larger.
MAX_METADATA = 32 * 1024
MAX_METADATA_KEYS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator allows. ``None`` means no limit; sizes are in bytes.

    Those of an append bind only clients that can know of them, which the dialect says. An unfinished upload may be left
    alone for ``partial_expiry``, and be unfinished for ``partial_lifetime`` in all.
    """

    max_size: int | None = None
    partial_expiry: timedelta | None = None
    partial_lifetime: timedelta | None = None
    min_size: int = 0
    max_append_size: int | None = None
    min_append_size: int = 0


def lifetime(limits: Limits) -> timedelta | None:
    """Return how long an upload stays that is created now and to which nothing is added, ``None`` for ever."""
    spans = [span for span in (limits.partial_expiry, limits.partial_lifetime) if span is not None]
    return min(spans, default=None)


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
    return moment is not None and moment.replace(microsecond=0) < now.replace(microsecond=0) and not upload.is_unmarked


def check_create(create: Create, limits: Limits) -> None:
    """Decide a creation before anything of it exists.

    Source: tus 1.0.0, Creation and Creation With Upload.

    Raises:
        UploadTooLarge, UploadTooSmall: the length, or the body of a deferred one, is not accepted (413, 400).
        AppendTooLarge, AppendTooSmall: one request may not hold so much, or so little (413, 400).
        UploadOverrun: the body is known to be longer than the upload (413).
        BadRequest: there is too much metadata (400).
    """
    check_metadata(create.metadata)
    _check_length(create.length, limits, is_partial=create.is_partial)
    _check_size(0, create.length, create, limits)


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
    total = sum(length or 0 for length in lengths)
    _check_length(total, limits, is_partial=None in lengths)
    return None if None in lengths else total


def check_metadata(metadata: Metadata) -> None:
    """Refuse what is too much to be kept, and told with every HEAD.

    Raises:
        BadRequest: there is too much metadata (400).
    """
    if len(metadata.field) > MAX_METADATA or len(metadata.pairs) > MAX_METADATA_KEYS:
        raise BadRequest(
            "ERR_METADATA_TOO_LARGE",
            f"Upload-Metadata is too large; send {MAX_METADATA} bytes with {MAX_METADATA_KEYS} keys at most",
        )


def check_append(upload: Upload, append: Append, limits: Limits, now: datetime) -> Upload:
    """Decide an append before its first byte is read, and return the upload as it is recorded from then on.

    Source: tus 1.0.0, PATCH and Creation Defer Length; IETF draft, Upload Append.

    Raises:
        UploadExpired: ``now`` is past ``expires_at`` (410).
        OffsetMismatch: ``append.offset`` is not where the upload ends (409).
        CompletedUpload: there is nothing to add to it any more, and this is no repeat of what completed it (400).
        InconsistentLength: another length than the known one, or one below the offset, is declared (400).
        BadRequest: another digest than the known one is declared (400).
        UploadTooLarge, UploadTooSmall: the declared length or the request is not accepted (413, 400).
        AppendTooLarge, AppendTooSmall: one request may not hold so much, or so little (413, 400).
        UploadOverrun: the request is known to hold more bytes than are missing (413).
    """
    if is_expired(upload, limits, now):
        raise UploadExpired
    if append.offset != upload.offset:
        raise OffsetMismatch(expected=upload.offset, provided=append.offset)
    if upload.is_complete and not append.may_repeat:
        raise CompletedUpload(has_bytes=append.size != 0)
    settled = settle_length(upload, append.length, limits)
    if append.is_last and append.size is not None:
        settled = _settle_last(settled, append.offset + append.size, limits)
    _check_size(upload.offset, settled.length, append, limits)
    return settled if upload.is_complete else _settle_end(settled, append)


def _settle_end(upload: Upload, append: Append) -> Upload:
    """Return the upload as it is after what ``append`` says of its end.

    The word that it ends counts at once where the end is known: then a crash behind its last byte loses nothing.
    """
    if not upload.ends_by_word and not append.repr_digest:
        return upload
    is_ended = upload.is_ended if append.is_last and append.size is None else not append.holds_open
    return replace(
        upload,
        is_ended=upload.ends_by_word and is_ended,
        repr_digest=settle_digests(upload.repr_digest, append.repr_digest),
    )


def _settle_last(upload: Upload, end: int, limits: Limits) -> Upload:
    """Return the upload with its length as it is when its last body ends at ``end``."""
    if upload.length is not None and upload.length != end:
        # The client did not name this length, so it is told what of its request says it.
        raise InconsistentLength(
            f"the body ends at {end}, and the length is {upload.length}; send all that is missing and no more"
        )
    return settle_length(upload, end, limits)


def settle_length(upload: Upload, declared: int | None, limits: Limits) -> Upload:
    """Return the upload with its length as it is after ``declared`` (``None``: nothing was declared).

    A length never changes once it is set. The same value again is accepted: clients repeat it when they retry.

    Source: tus 1.0.0, Creation Defer Length; IETF draft, Upload Length.
    """
    if declared is None or declared == upload.length:
        return upload
    if upload.length is not None:
        raise InconsistentLength(f"the length is {upload.length} already, not {declared}; leave Upload-Length out")
    if declared < upload.offset:
        raise InconsistentLength(
            f"the length is below the {upload.offset} bytes already stored; send the length of the whole upload"
        )
    _check_length(declared, limits, is_partial=upload.is_partial)
    return replace(upload, length=declared)


def end(upload: Upload, limits: Limits) -> Upload:
    """Return the upload as it is after the body that its client says is the last one.

    Source: IETF draft, Upload Length.

    Raises:
        InconsistentLength: it has not all the bytes of its length.
        UploadTooSmall: it has fewer bytes than are accepted.
    """
    if upload.length is not None and upload.length != upload.offset:
        raise InconsistentLength(
            f"the upload would end at {upload.offset}, not at its length of {upload.length}; send all of its bytes"
        )
    _check_length(upload.offset, limits, is_partial=upload.is_partial)
    return replace(upload, length=upload.offset, is_ended=upload.ends_by_word)


def room(offset: int, length: int | None, limits: Limits) -> int | None:
    """Return how many bytes may follow ``offset``, ``None`` when nothing bounds them."""
    bound = limits.max_size if length is None else length
    return None if bound is None else max(bound - offset, 0)


def bound(
    offset: int, length: int | None, request: Create | Append, limits: Limits
) -> tuple[int | None, Callable[[], UploadError]]:
    """Return how many bytes ``request`` may add behind ``offset``, and what makes the error for one more."""
    left, most = room(offset, length, limits), request.most
    if most is not None and (left is None or most < left):
        return most, lambda: AppendTooLarge(maximum=most)
    return left, lambda: overrun(length, limits)


def overrun(length: int | None, limits: Limits) -> UploadOverrun | UploadTooLarge:
    """Return the error for bytes beyond the room: they pass the upload's length, or the maximum while it has none."""
    if length is not None:
        return UploadOverrun(length=length)
    assert limits.max_size is not None, "without a length, only the maximum bounds an upload"
    return UploadTooLarge(maximum=limits.max_size)


def _check_length(length: int | None, limits: Limits, *, is_partial: bool) -> None:
    """Check the length of an upload, or of a part of one, which may be as small as it likes."""
    if length is not None and limits.max_size is not None and length > limits.max_size:
        raise UploadTooLarge(maximum=limits.max_size)
    if length is not None and length < limits.min_size and not is_partial:
        raise UploadTooSmall(minimum=limits.min_size)


def _check_size(offset: int, length: int | None, request: Create | Append, limits: Limits) -> None:
    """Check the size of a request that says it beforehand. (Of one that does not, too little is no harm.)"""
    if request.size is None:
        return
    most, error = bound(offset, length, request, limits)
    if most is not None and request.size > most:
        raise error()
    if request.size < request.least:
        raise AppendTooSmall(minimum=request.least)
