"""Content-Digest, Repr-Digest and Want-Repr-Digest, for every dialect."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest

from tusd_py.errors import BadRequest, ChecksumMismatch, DigestMismatch
from tusd_py.protocol.digest_fields import (
    ContentVerification,
    answer_wish,
    build_digests,
    parse_content_digest,
    parse_digests,
    parse_repr_digest,
    settle_digests,
)
from tusd_py.protocol.digests import Checksum, Verification, algorithms
from tusd_py.protocol.fields import Fields

SHA256 = Checksum("sha256", hashlib.sha256(b"hello").digest())
SHA512 = Checksum("sha512", hashlib.sha512(b"hello").digest())
OTHER = Checksum("sha256", hashlib.sha256(b"other").digest())


def said(checksum: Checksum) -> str:
    return f"{checksum.algorithm.replace('sha', 'sha-')}=:{b64encode(checksum.digest).decode()}:"


def fields(name: str, *values: str) -> Fields:
    return Fields([(name.encode(), value.encode()) for value in values])


@pytest.mark.parametrize(
    ("text", "digests"),
    [
        (said(SHA256), (SHA256,)),
        (f"{said(SHA512)}, {said(SHA256)}", (SHA512, SHA256)),
        (f"md5=:aGVsbG8=:, {said(SHA256)};x=1", (SHA256,)),
        ("unixsum=:AAA=:", ()),
        # malformed is not there
        ("sha-256=hello", ()),
        (f'{said(SHA256)}, sha-512="no bytes"', ()),
        ("sha-256=:not base64:", ()),
        ("sha-256", ()),
        ("sha-256=(:aGVsbG8=:)", ()),
        ("SHA-256=:aGVsbG8=:", ()),
        ("", ()),
    ],
)
def test_what_can_be_verified_is_found(text: str, digests: tuple[Checksum, ...]) -> None:
    assert parse_content_digest(fields("content-digest", text)) == digests
    assert parse_digests(parse_repr_digest(fields("repr-digest", text))) == digests


def test_a_field_that_was_built_is_parsed_again() -> None:
    assert parse_digests(build_digests((SHA256, SHA512))) == (SHA256, SHA512)


def test_right_content_passes() -> None:
    verification = ContentVerification((SHA256, SHA512), algorithms())
    verification.update(b"hel")
    verification.update(b"lo")
    verification.check()
    assert verification.has_passed


@pytest.mark.parametrize("digests", [(OTHER,), (SHA512, OTHER)])
def test_wrong_content_does_not_pass_one_of_its_digests(digests: tuple[Checksum, ...]) -> None:
    verification = ContentVerification(digests, algorithms())
    verification.update(b"hello")
    with pytest.raises(DigestMismatch):
        verification.check()
    assert not verification.has_passed


def test_a_digest_that_cannot_be_one_is_refused_before_a_byte_is_read() -> None:
    with pytest.raises(DigestMismatch):
        ContentVerification((Checksum("sha256", b"short"),), algorithms())


def test_the_checksum_of_tus_is_verified_beside_it() -> None:
    checksum = Verification(Checksum("sha1", hashlib.sha1(b"other").digest()), algorithms())
    verification = ContentVerification((SHA256,), algorithms(), checksum)
    verification.update(b"hello")
    with pytest.raises(ChecksumMismatch):
        verification.check()


@pytest.mark.parametrize(
    ("recorded", "declared", "settled"),
    [
        ("", "", ()),
        (said(SHA256), "", (SHA256,)),
        ("", said(SHA512), (SHA512,)),
        (said(SHA256), said(SHA256), (SHA256,)),
        (said(SHA256), said(SHA512), (SHA256, SHA512)),
    ],
)
def test_what_is_declared_later_joins_what_is_known(
    recorded: str, declared: str, settled: tuple[Checksum, ...]
) -> None:
    assert parse_digests(settle_digests(recorded, declared)) == settled


def test_a_digest_that_contradicts_an_earlier_one_is_refused() -> None:
    with pytest.raises(BadRequest, match="another one than before"):
        settle_digests(said(SHA256), said(OTHER))


@pytest.mark.parametrize(
    ("wish", "answer"),
    [
        ("sha-256=1", SHA256),
        ("sha-512=3, sha-256=10", SHA256),
        ("sha-512=10, sha-256=3", SHA512),
        ("md5=10, sha-512=1", SHA512),
        ("sha-256=0", None),
        ("sha-256=0, sha-512=0", None),
        ("sha-256=11", None),
        ("sha-256=-1", None),
        ("sha-256", None),
        ("md5=10", None),
        ("sha-256=1,", None),
        ("", None),
    ],
)
def test_the_client_gets_the_digest_that_it_likes_best(wish: str, answer: Checksum | None) -> None:
    known = build_digests((SHA256, SHA512))
    told = answer_wish(fields("want-repr-digest", wish), known)
    assert told == (() if answer is None else (("Repr-Digest", said(answer)),))


def test_a_digest_that_is_not_known_is_not_told() -> None:
    assert answer_wish(fields("want-repr-digest", "sha-256=10"), "") == ()
    assert answer_wish(fields("x", "y"), said(SHA256)) == ()
