"""Checksums: known answers for every algorithm, and what is refused before a byte is read."""

from __future__ import annotations

import hashlib
import importlib.util
from base64 import b64decode, b64encode
from contextlib import suppress
from importlib.machinery import ModuleSpec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.errors import BadRequest, ChecksumMismatch
from tusd_py.protocol import digests
from tusd_py.protocol.digests import Checksum, Verification, algorithms, build_checksum, parse_checksum

# The check values of the algorithms' own descriptions (RFC 1321, RFC 3174, FIPS 180-4, the Rocksoft model for CRCs).
VECTORS = (
    ("sha1", b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("sha1", b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ("md5", b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("md5", b"", "d41d8cd98f00b204e9800998ecf8427e"),
    ("sha256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("sha256", b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (
        "sha512",
        b"abc",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
    ("crc32", b"123456789", "cbf43926"),
    ("crc32", b"", "00000000"),
    ("crc32c", b"123456789", "e3069283"),
    ("crc32c", b"", "00000000"),
    ("xxh3", b"", "2d06800538d394c2"),
    ("blake3", b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ("blake3", b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
)


@pytest.mark.parametrize(("algorithm", "data", "expected"), VECTORS)
def test_the_digests_are_those_of_the_algorithms_own_descriptions(algorithm: str, data: bytes, expected: str) -> None:
    digest = algorithms()[algorithm]()
    digest.update(data)
    assert digest.digest().hex() == expected


@pytest.mark.parametrize("algorithm", algorithms())
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_digest_takes_any_buffer_in_any_pieces(
    algorithm: str, kind: type[bytes] | type[bytearray] | type[memoryview]
) -> None:
    whole, pieces = algorithms()[algorithm](), algorithms()[algorithm]()
    whole.update(b"one and two and three")
    for piece in (b"one", b"", b" and two", b" and three"):
        pieces.update(kind(piece))
    assert pieces.digest() == whole.digest()
    assert len(whole.digest()) == whole.digest_size


def test_digests_of_two_requests_know_nothing_of_each_other() -> None:
    for start in algorithms().values():
        first, second = start(), start()
        first.update(b"something")
        assert second.digest() == start().digest()


# Which algorithms there are


def test_sha1_comes_first_and_the_extras_come_last() -> None:
    assert list(algorithms()) == ["sha1", "md5", "sha256", "sha512", "crc32", "crc32c", "xxh3", "blake3"]


@pytest.mark.parametrize(
    ("library", "algorithm"), [("google_crc32c", "crc32c"), ("xxhash", "xxh3"), ("blake3", "blake3")]
)
def test_an_algorithm_whose_library_is_missing_is_not_announced(
    monkeypatch: pytest.MonkeyPatch, library: str, algorithm: str
) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == library else importlib.util.find_spec(name)

    expected = [name for name in algorithms() if name != algorithm]
    monkeypatch.setattr(digests, "find_spec", find_spec)
    assert list(algorithms()) == expected


def test_without_any_extra_the_algorithms_of_the_standard_library_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "find_spec", lambda name: None)
    assert list(algorithms()) == ["sha1", "md5", "sha256", "sha512", "crc32"]


# The field

ABC_SHA1 = hashlib.sha1(b"abc").digest()


def test_the_example_of_the_standard_is_read() -> None:
    checksum = parse_checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=")
    assert checksum == Checksum("sha1", b64decode("Kq5sNclPz7QV2+lfQIuc6R7oRu0="))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "sha1",
        "sha1 ",
        " Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1\tKq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0= ",
        "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0",
        "sha1 Kq5sNclPz7QV2-lfQIuc6R7oRu0=",
        "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=,md5 kAFQmDzST7DWlj99KOF/cg==",
        "sha1 2aae6c35c94fcfb415dbe95f408b9ce91ee846e",
        "sha1 \u00e9\u00e9\u00e9\u00e9",
        "sha1 ====",
    ],
)
def test_a_malformed_checksum_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_checksum(text)
    assert caught.value.code == "ERR_INVALID_CHECKSUM"


@given(st.text(st.characters(exclude_characters=" "), min_size=1), st.binary(min_size=1))
def test_a_checksum_that_was_built_is_read_as_itself(algorithm: str, digest: bytes) -> None:
    checksum = Checksum(algorithm, digest)
    assert parse_checksum(build_checksum(checksum)) == checksum


@given(st.one_of(st.text(), st.binary().map(lambda value: value.decode("latin-1"))))
def test_no_text_makes_the_parser_raise_anything_but_bad_request(text: str) -> None:
    with suppress(BadRequest):
        Verification(parse_checksum(text), algorithms())


# Verification


@pytest.mark.parametrize("algorithm", ["SHA1", "Sha1", "sha-1", "sha3", "", "new", "__class__", "crc32\n", "\u017fha1"])
def test_an_algorithm_that_is_not_known_is_refused_with_the_list_of_those_that_are(algorithm: str) -> None:
    with pytest.raises(BadRequest, match=r"use one of sha1, md5, sha256") as caught:
        Verification(Checksum(algorithm, ABC_SHA1), algorithms())
    assert caught.value.status == 400


def test_an_algorithm_whose_library_is_missing_is_refused() -> None:
    with pytest.raises(BadRequest):
        Verification(Checksum("xxh3", bytes(8)), {"sha1": hashlib.sha1})


@pytest.mark.parametrize("size", [1, 19, 21, 32])
def test_a_digest_of_the_wrong_length_is_refused(size: int) -> None:
    with pytest.raises(BadRequest, match="sha1 digest of 20 bytes"):
        Verification(Checksum("sha1", bytes(size)), algorithms())


@pytest.mark.parametrize("algorithm", algorithms())
def test_content_that_has_the_announced_digest_passes(algorithm: str) -> None:
    digest = algorithms()[algorithm]()
    digest.update(b"abc")
    verification = Verification(Checksum(algorithm, digest.digest()), algorithms())
    verification.update(memoryview(b"a"))
    verification.update(b"bc")
    verification.check()


@pytest.mark.parametrize("algorithm", algorithms())
@pytest.mark.parametrize("data", [b"", b"ab", b"abcd", b"abC"])
def test_content_that_has_another_digest_does_not(algorithm: str, data: bytes) -> None:
    digest = algorithms()[algorithm]()
    digest.update(b"abc")
    verification = Verification(Checksum(algorithm, digest.digest()), algorithms())
    verification.update(data)
    with pytest.raises(ChecksumMismatch) as caught:
        verification.check()
    assert caught.value.status == 460


def test_an_empty_content_has_a_digest_too() -> None:
    Verification(Checksum("sha1", hashlib.sha1().digest()), algorithms()).check()


def test_a_crc_is_sent_with_its_most_significant_byte_first() -> None:
    sent = f"crc32 {b64encode(bytes.fromhex('cbf43926')).decode()}"
    verification = Verification(parse_checksum(sent), algorithms())
    verification.update(b"123456789")
    verification.check()
