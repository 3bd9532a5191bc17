"""Which dialect a request speaks.

Decided for each request by its own fields, and never kept with an upload: a phone may be updated in the middle of one.
"""

from __future__ import annotations

from collections.abc import Mapping

from tusd_py.protocol.fields import Fields, parse_content_type
from tusd_py.protocol.ietf import APPEND_TYPE, VERSION_FIELD, Draft, UnknownDraft
from tusd_py.protocol.ietf_versions import NEWEST, VERSIONS
from tusd_py.protocol.messages import Dialect, Reply
from tusd_py.protocol.rules import Limits
from tusd_py.protocol.structured import boolean, integer

_VERSION = VERSION_FIELD.lower()
_WORDS_OF_THE_DRAFT = (_VERSION, "upload-complete", "upload-incomplete")


class Dialects:
    """``tus``, and the versions of the draft for what ``limits`` allow.

    ``put`` lets the draft create with PUT, too. ``without_version`` takes requests without a version, as the coming RFC
    will have them, for the newest one; its HEAD and DELETE have no field that would tell them from others.
    """

    def __init__(self, tus: Dialect, limits: Limits, *, put: bool = False, without_version: bool = False) -> None:
        self._tus = tus
        self._drafts: Mapping[int | None, Dialect] = {
            version.number: Draft(version, limits, put=put) for version in VERSIONS
        }
        self._unknown: Dialect = UnknownDraft(limits, put=put)
        self._unversioned = Draft(NEWEST, limits, put=put, names_version=False) if without_version else self._unknown
        self._unnamed = self._unversioned if without_version else tus
        self.all = (tus, *self._drafts.values(), self._unknown, self._unversioned)

    def of(self, fields: Fields, method: str) -> Dialect:
        """Return the dialect of a request with this method and these fields. Never raises."""
        if "tus-resumable" in fields:
            return self._tus
        if not _is_draft(fields):
            return self._unnamed if method in ("HEAD", "DELETE") else self._tus
        if _VERSION in fields:
            return self._drafts.get(integer(fields, _VERSION), self._unknown)
        return self._unknown if boolean(fields, "upload-complete") is None else self._unversioned

    def discovered(self, dialect: Dialect) -> Reply:
        """Say in ``dialect`` what this server can do, and in the other one: whoever asks that may name none."""
        draft = self._unknown if dialect is self._tus else dialect
        return Reply(204, (*self._tus.discovered().fields, *draft.discovered().fields))


def _is_draft(fields: Fields) -> bool:
    if any(name in fields for name in _WORDS_OF_THE_DRAFT):
        return True
    return parse_content_type(fields.combined("content-type") or "") == APPEND_TYPE
