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

    ``trailing`` is tus as it is spoken where the server hands over what follows a body; ``tus`` by default.
    ``put`` lets the draft create with PUT, too. ``without_version`` takes requests without a version, as the coming RFC
    will have them, for the newest one; its HEAD and DELETE have no field that would tell them from others.
    """

    def __init__(
        self,
        tus: Dialect,
        limits: Limits,
        *,
        trailing: Dialect | None = None,
        put: bool = False,
        without_version: bool = False,
    ) -> None:
        self._tus = tus
        self._trailing = trailing or tus
        self._drafts: Mapping[int | None, Dialect] = {
            version.number: Draft(version, limits, put=put) for version in VERSIONS
        }
        self._unknown: Dialect = UnknownDraft(limits, put=put)
        self._unversioned = Draft(NEWEST, limits, put=put, names_version=False) if without_version else self._unknown
        self._takes_unversioned = without_version
        self.all = (tus, self._trailing, *self._drafts.values(), self._unknown, self._unversioned)

    def of(self, fields: Fields, method: str, *, trailers: bool = False) -> Dialect:
        """Return the dialect of a request with this method and these fields. Never raises.

        ``trailers`` says whether the server hands over what follows a body.
        """
        tus = self._trailing if trailers else self._tus
        if "tus-resumable" in fields:
            return tus
        if not _is_draft(fields):
            return self._unversioned if self._takes_unversioned and method in ("HEAD", "DELETE") else tus
        if _VERSION in fields:
            return self._drafts.get(integer(fields, _VERSION), self._unknown)
        return self._unknown if boolean(fields, "upload-complete") is None else self._unversioned

    def discovered(self, dialect: Dialect) -> Reply:
        """Say in ``dialect`` what this server can do, and in the other one: whoever asks that may name none."""
        is_tus = dialect in (self._tus, self._trailing)
        tus, draft = (dialect, self._unknown) if is_tus else (self._tus, dialect)
        return Reply(204, (*tus.discovered().fields, *draft.discovered().fields))


def _is_draft(fields: Fields) -> bool:
    if any(name in fields for name in _WORDS_OF_THE_DRAFT):
        return True
    return parse_content_type(fields.combined("content-type") or "") == APPEND_TYPE
