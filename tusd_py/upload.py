"""The noun: what an upload is.

Frozen values only. Nothing here waits, opens a file or knows HTTP; everything else may import it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

ID_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{15,63}")


def is_id(text: str) -> bool:
    """Tell whether ``text`` may be the id of an upload.

    Everything that becomes part of a path passes here first. The first character is a letter or a digit, so that an
    id is never taken for an option or a hidden file; sixteen characters at least keep ids apart from the names of
    the folders beside them.
    """
    return ID_GRAMMAR.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the client says about its upload: pairs of a name and any bytes, and the header field that carried them.

    ``field`` is kept as it was received because offset retrieval must show it back unchanged, in order and in the
    client's own spelling; ``pairs`` is the same, parsed.
    """

    field: str = ""
    pairs: tuple[tuple[str, bytes], ...] = ()

    def get(self, name: str) -> bytes | None:
        """Return the value of ``name``, or ``None`` when the client did not send it."""
        return next((value for key, value in self.pairs if key == name), None)

    @property
    def filename(self) -> str:
        """The client's name for its file, ``""`` when it has none. To be shown and judged, never to become a path."""
        value = self.get("filename") or self.get("name") or b""
        return value.decode("utf-8", "replace")


NO_METADATA = Metadata()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload: what is recorded of it, and what is measured.

    Recorded: ``id``, ``created_at``, ``length`` (bytes, ``None`` while deferred), ``metadata``, ``extension`` (what
    its file will end with, dot included) and ``completed_at``. All times are aware and in UTC. Of a concatenation also
    ``concat`` (the field that asked for it, as received), ``is_partial``, ``members`` (the ids that a final consists
    of, in order, repeats included) and ``awaited_by`` (the ids of finals that are to hear when a partial completes).
    ``ends_by_word`` says that only its client's word completes it, whatever its length, and ``is_ended`` that the word
    was given: it ends at ``length``. ``repr_digest`` is what the whole has to have as its digest, as the field.

    Measured by the store whenever the upload is looked up, and never written down: ``offset``, the bytes stored so
    far that count, and ``written_at``, when the last of them was stored.
    """

    id: str
    created_at: datetime
    length: int | None
    metadata: Metadata = NO_METADATA
    extension: str = ""
    completed_at: datetime | None = None
    concat: str = ""
    is_partial: bool = False
    members: tuple[str, ...] = ()
    awaited_by: tuple[str, ...] = ()
    ends_by_word: bool = False
    is_ended: bool = False
    repr_digest: str = ""
    offset: int = 0
    written_at: datetime

    @property
    def is_complete(self) -> bool:
        """Whether completion is recorded. ``offset == length`` alone does not say so."""
        return self.completed_at is not None

    @property
    def is_final(self) -> bool:
        """Whether it consists of partials, and is written by concatenation alone."""
        return bool(self.members)

    @property
    def is_pending(self) -> bool:
        """Whether it is a final that still waits for some of its partials."""
        return self.is_final and not self.is_complete

    @property
    def is_whole(self) -> bool:
        """Whether every byte of a known length is stored."""
        return self.offset == self.length

    @property
    def is_unmarked(self) -> bool:
        """Whether it lacks nothing for completion but the mark: a crash came in between, or its last byte just now."""
        return self.is_whole and not self.is_complete and (self.is_ended or not self.ends_by_word)
