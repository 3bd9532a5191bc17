"""What a client may ask, what it is answered, and the contract of the dialects that stand between.

A message holds what was said, parsed and grammatical, and nothing about whether it is allowed. Offset retrieval and
termination say nothing but the id, so they need no message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from tusd_py.errors import UploadError
from tusd_py.protocol.digests import Checksum
from tusd_py.protocol.fields import Fields
from tusd_py.upload import NO_METADATA, Metadata, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """A creation.

    ``length`` is the length of the whole upload in bytes, ``None`` while deferred. ``has_body`` tells whether the
    request carries first bytes of it, ``size`` how many if the request says so beforehand. ``is_last`` says that the
    upload ends with this body, and so settles its length where that is not known before. ``ends_by_word`` says that
    nothing but such a word ends it, now or later: having all bytes of its length does not.

    ``checksum`` and ``content_digests`` are what the body has to match, ``repr_digest`` what the whole upload has to
    (the field, as ``digest_fields`` builds it). ``checksum_follows`` says that the checksum comes behind the body (see
    ``Dialect.parse_trailers``). ``most`` and ``least`` are the bytes that the body may hold by the
    limits on single requests, where the client can know of those.

    ``concat`` is the field that makes it part of a concatenation, as received: that of a partial when ``is_partial``
    is set, that of a final made of the URLs ``final_of`` (as they were sent) when there are any.
    """

    length: int | None
    metadata: Metadata = NO_METADATA
    has_body: bool = False
    size: int | None = None
    is_last: bool = False
    ends_by_word: bool = False
    checksum: Checksum | None = None
    checksum_follows: bool = False
    content_digests: tuple[Checksum, ...] = ()
    repr_digest: str = ""
    most: int | None = None
    least: int = 0
    concat: str = ""
    is_partial: bool = False
    final_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Bytes to go on with from ``offset``; ``length`` is the upload's length where the request declares it.

    ``size`` is the number of bytes that the request says it holds, ``None`` when it does not say (chunked).
    ``is_last`` says that the upload ends with them, and so settles its length where that is not known before;
    ``holds_open`` says that it does not, even where they are all bytes of its length. (tus says neither.)

    ``checksum``, ``checksum_follows``, ``content_digests``, ``repr_digest``, ``most`` and ``least`` are those of
    ``Create``.

    ``may_repeat`` tells whether this may be the request that completed the upload once more, if it adds nothing: then
    it is answered as that one was. ``removes_overrun`` tells whether bytes beyond the length spoil the upload.
    """

    offset: int
    length: int | None = None
    size: int | None = None
    is_last: bool = False
    holds_open: bool = False
    checksum: Checksum | None = None
    checksum_follows: bool = False
    content_digests: tuple[Checksum, ...] = ()
    repr_digest: str = ""
    most: int | None = None
    least: int = 0
    may_repeat: bool = True
    removes_overrun: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer without its wire: status, header fields in order, and a body that may be empty."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Dialect(ABC):
    """A way of saying the same things: header fields in, messages out; results in, replies out.

    Holds nothing about any request. ``size`` is what the framing of a request tells about its body: ``0`` when there
    is none, ``None`` when its end will show (chunked). ``now`` is the moment of the answer.

    ``creation_methods`` are those that create an upload on the collection, ``retrieval_methods`` those that ask an
    upload for its offset. ``tells_on_the_way`` says whether there are words for ``begun`` and ``progressed``.
    """

    creation_methods: tuple[str, ...] = ("POST",)
    retrieval_methods: tuple[str, ...] = ("HEAD",)
    tells_on_the_way: bool = False

    @abstractmethod
    def check_request(self, fields: Fields, method: str) -> None:
        """Refuse what is wrong with a request whatever it is about.

        Raises:
            UnsupportedVersion, UnsupportedDraft: it speaks a version that is not served.
            BadRequest: it holds a field that it must not hold.
        """

    @abstractmethod
    def parse_create(self, fields: Fields, size: int | None) -> Create:
        """Return the creation that the fields ask for. Raises ``BadRequest``, ``UnsupportedMediaType``."""

    @abstractmethod
    def parse_append(self, fields: Fields, size: int | None) -> Append:
        """Return the append that the fields ask for. Raises ``BadRequest``, ``UnsupportedMediaType``."""

    def parse_trailers(self, trailers: Fields) -> Checksum | None:
        """Return the checksum that the fields behind a body tell of it, if they do. Raises ``BadRequest``."""
        return None

    def begun(self, upload: Upload, location: str, now: datetime) -> Reply | None:
        """Say, before the body is read, that ``upload`` exists and lives at ``location``; ``None``: say nothing."""
        return None

    def progressed(self, offset: int) -> Reply | None:
        """Say, while the body comes, that the upload has all bytes before ``offset``; ``None``: say nothing."""
        return None

    @abstractmethod
    def created(self, upload: Upload, location: str, now: datetime) -> Reply:
        """Say that ``upload`` exists and lives at ``location``."""

    @abstractmethod
    def appended(self, upload: Upload, location: str) -> Reply:
        """Say how far ``upload`` at ``location`` is after an append."""

    @abstractmethod
    def status(self, upload: Upload, now: datetime, described: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Say how far ``upload`` is, and what is known of it; the fields ``described`` tell of its content."""

    @abstractmethod
    def downloaded(self, upload: Upload, head: Reply) -> Reply:
        """Say what ``head`` says of a finished upload's content, which no dialect knows anything about."""

    @abstractmethod
    def terminated(self) -> Reply:
        """Say that the upload is gone."""

    @abstractmethod
    def discovered(self) -> Reply:
        """Say what this server can do."""

    @abstractmethod
    def refused(self, error: UploadError, method: str) -> Reply:
        """Say why not, and what to send instead. ``method`` is that of the request, ``""`` where it is not known."""
