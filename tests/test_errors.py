from __future__ import annotations

import inspect
import re

import pytest

from tusd_py import errors
from tusd_py.errors import ConnectionLost, UploadError

# One of each, built from facts as the program builds it.
EXAMPLES: tuple[UploadError, ...] = (
    errors.BadRequest("ERR_INVALID_OFFSET", "Upload-Offset is missing; send it"),
    errors.ExtensionRefused(extension=".exe", allowed=(".mp3", ".wav")),
    errors.InconsistentLength("the length is 10 already; leave Upload-Length out"),
    errors.UploadTooSmall(minimum=100),
    errors.AppendTooSmall(minimum=100),
    errors.DigestMismatch(),
    errors.UnsupportedDraft(served=(3, 4)),
    errors.CompletedUpload(has_bytes=True),
    errors.FinalUpload(),
    errors.OriginRefused(),
    errors.UploadNotFound(),
    errors.MethodNotAllowed(allowed=("POST", "OPTIONS")),
    errors.HeadTimedOut(seconds=20.0),
    errors.OffsetMismatch(expected=5, provided=7),
    errors.UploadInterrupted(),
    errors.BodyTimedOut(seconds=30.0),
    errors.BodyTooSlow(rate=100.0, seconds=10.0),
    errors.UploadExpired(),
    errors.UnsupportedVersion(served="1.0.0"),
    errors.PreconditionFailed(),
    errors.UploadTooLarge(maximum=1000),
    errors.AppendTooLarge(maximum=100),
    errors.UploadOverrun(length=10),
    errors.TargetTooLong(maximum=16384),
    errors.UnsupportedMediaType(expected="application/offset+octet-stream"),
    errors.ContentRefused(extension=".mp3", allowed=(".mp3", ".wav")),
    errors.WrongRepresentation(),
    errors.RangeNotSatisfiable(length=10),
    errors.MisdirectedRequest(),
    errors.UploadLocked(),
    errors.FieldTooLarge(maximum=16384),
    errors.HeadTooLarge(maximum=65536),
    errors.ChecksumMismatch(),
    errors.ServerStopping(),
    errors.StorageUnavailable(),
    errors.StorageFailed(),
    errors.UnsupportedCoding(),
    errors.StorageFull(),
    errors.TooManyConnections(),
)


def of_class(error: UploadError) -> str:
    return type(error).__name__


def parents_in_the_drawing() -> dict[str, tuple[str, int]]:
    """Read the tree at the top of the module: for each error the one that it hangs from, and its status."""
    above: list[str] = []
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +(\d{3})(?: .*)?)?", line)
        if drawn is None:
            continue
        branch, name, status = drawn.groups()
        depth = len(branch) // 4
        above = [*above[:depth], name]
        if status is not None:
            parents[name] = (above[depth - 1], int(status))
    return parents


def test_the_tree_at_the_top_of_the_module_is_the_truth() -> None:
    classes = {
        name: (value.__mro__[1].__name__, value.status)
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, UploadError) and value is not UploadError and value.__module__ == errors.__name__
    }
    assert parents_in_the_drawing() == classes


def test_there_is_an_example_of_every_error() -> None:
    assert {of_class(error) for error in EXAMPLES} == set(parents_in_the_drawing())


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_an_error_has_a_code_that_programs_can_look_for(error: UploadError) -> None:
    assert re.fullmatch(r"ERR(_[A-Z]+)+", error.code)


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_an_error_says_in_one_line_what_is_wrong_and_what_to_do(error: UploadError) -> None:
    sentence = str(error)
    assert sentence.isprintable()
    assert "; " in sentence


@pytest.mark.parametrize("error", EXAMPLES, ids=of_class)
def test_an_error_is_answered_with_a_refusal(error: UploadError) -> None:
    assert 400 <= error.status < 600


@pytest.mark.parametrize("error", [error for error in EXAMPLES if error.status in (423, 503, 507)], ids=of_class)
def test_trouble_that_passes_says_when_to_come_back(error: UploadError) -> None:
    assert error.retry_after


def test_errors_of_one_status_have_codes_of_their_own() -> None:
    codes = [error.code for error in EXAMPLES]
    assert len(set(codes)) == len(codes)


def test_the_facts_stay_with_the_error() -> None:
    mismatch = errors.OffsetMismatch(expected=5, provided=7)
    assert (mismatch.expected, mismatch.provided) == (5, 7)
    assert "5" in str(mismatch)
    assert errors.MethodNotAllowed(allowed=["POST"]).allowed == ("POST",)
    assert errors.ExtensionRefused(extension=".exe", allowed=[".mp3"]).allowed == (".mp3",)


@pytest.mark.parametrize(
    ("extension", "said"),
    [(".exe", "the extension .exe is not accepted"), ("", "a name without an extension is not accepted")],
)
def test_a_refused_extension_is_answered_with_the_list_of_what_is_allowed(extension: str, said: str) -> None:
    sentence = str(errors.ExtensionRefused(extension=extension, allowed=(".mp3", ".wav")))
    assert said in sentence
    assert ".mp3, .wav" in sentence


def test_a_lost_connection_is_no_answer() -> None:
    assert not issubclass(ConnectionLost, UploadError)
