"""Problem details: errors as JSON, with a type that programs know where there is one. Source: RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

CONTENT_TYPE = "application/problem+json"

_REGISTRY = "https://iana.org/assignments/http-problem-types#"

# Source: IETF draft, Problem Types.
MISMATCHING_OFFSET = _REGISTRY + "mismatching-upload-offset"
INCONSISTENT_LENGTH = _REGISTRY + "inconsistent-upload-length"
COMPLETED_UPLOAD = _REGISTRY + "completed-upload"

_TITLES = {
    MISMATCHING_OFFSET: "The offset of the append is not that of the upload",
    INCONSISTENT_LENGTH: "The length of the upload is not consistent",
    COMPLETED_UPLOAD: "The upload is complete",
}


def build_problem(
    status: int, detail: str, *, code: str, type: str = "", members: Mapping[str, int] | None = None
) -> bytes:
    """Write a problem: ``detail`` is a sentence for people, ``code`` our own name for it, ``members`` are of its type.

    Without a ``type`` it is no more than its status says (RFC 9457, 4.2.1).
    """
    named = {"type": type, "title": _TITLES[type]} if type else {"title": _phrase(status)}
    return json.dumps({**named, "status": status, "detail": detail, "code": code, **(members or {})}).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"
