"""The interop versions of the IETF draft, and all that differs between them: nothing else knows their numbers.

A version is a number that clients send in ``Upload-Draft-Interop-Version``. Each row below says what changed against
the one before, as the text of its drafts has it (draft-ietf-httpbis-resumable-upload).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One row of the table."""

    number: int

    has_inverse_flag: bool
    """``Upload-Incomplete`` instead of ``Upload-Complete``."""

    needs_flag: bool
    """Without the flag a request is refused. Before, it is one that completes."""

    needs_append_type: bool
    """An append is of the type ``application/partial-upload``."""

    stray_fields: tuple[str, ...]
    """Fields that HEAD and DELETE must not have."""

    retrieval_methods: tuple[str, ...]

    unfinished_status: int
    """The status of an append after which more comes."""

    tells_progress: bool
    """The offset is told while a body comes."""

    tells_limits: bool
    """``Upload-Limit`` is known."""

    lifetime: str
    """What ``Upload-Limit`` calls the seconds that an upload is still kept."""

    limits_creations: bool
    """The sizes of an append bind the content of creations, too."""

    flag_tells_who_refuses: bool
    """In a refusal the flag says that the application refused, and trying again is no use. Before, it is the state."""

    names_mismatch: bool
    names_inconsistency: bool
    names_completed: bool
    """Which problem types there are."""

    removes_overrun: bool
    """Bytes beyond its length spoil an upload."""

    repeats: bool
    """The request that completed an upload may come again, and is answered as before."""

    completed_gone: bool
    """An append without bytes to a finished upload is told that it is gone; with some, that its length is another."""

    is_that_of_tus_js_client: bool
    """tus-js-client speaks it; see ``Draft`` for what that needs."""


_3 = Version(
    number=3,
    has_inverse_flag=True,
    needs_flag=False,
    needs_append_type=False,
    stray_fields=("upload-offset", "upload-complete", "upload-incomplete"),
    retrieval_methods=("HEAD",),
    unfinished_status=201,
    tells_progress=False,
    tells_limits=False,
    lifetime="expires",
    limits_creations=False,
    flag_tells_who_refuses=False,
    names_mismatch=False,
    names_inconsistency=False,
    names_completed=True,
    removes_overrun=False,
    repeats=False,
    completed_gone=False,
    is_that_of_tus_js_client=False,
)
_4 = replace(_3, number=4, has_inverse_flag=False)
_5 = replace(_4, number=5, tells_progress=True, is_that_of_tus_js_client=True)
_6 = replace(
    _5,
    number=6,
    needs_append_type=True,
    stray_fields=(*_5.stray_fields, "upload-length"),
    tells_limits=True,
    names_mismatch=True,
)
_7 = replace(
    _6,
    number=7,
    needs_flag=True,
    stray_fields=(),
    unfinished_status=204,
    lifetime="max-age",
    flag_tells_who_refuses=True,
    names_inconsistency=True,
    removes_overrun=True,
    is_that_of_tus_js_client=False,
)
_8 = replace(_7, number=8, names_completed=False, completed_gone=True)
_9 = replace(
    _8,
    number=9,
    retrieval_methods=("HEAD", "GET"),
    limits_creations=True,
    repeats=True,
    completed_gone=False,
)
_10 = replace(_9, number=10)

VERSIONS = (_3, _4, _5, _6, _7, _8, _9, _10)
NEWEST = VERSIONS[-1]
