"""Digest fields: what the content of a message, or a whole representation, has as its digest. Source: RFC 9530.

They are our extension to both dialects. Each is a dictionary of byte sequences; one that is malformed is taken for one
that is not there, and algorithms that are not in the table never hurt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tusd_py.errors import BadRequest, ChecksumMismatch, DigestMismatch
from tusd_py.protocol.digests import Buffer, Checksum, Digest, Verification
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.structured import Item, Malformed, build_dictionary, dictionary, parse_dictionary

# RFC 9530, 5: the names there, and ours.
ALGORITHMS: Mapping[str, str] = {"sha-256": "sha256", "sha-512": "sha512"}
_NAMES = {ours: theirs for theirs, ours in ALGORITHMS.items()}

Digests = tuple[Checksum, ...]


class ContentVerification(Verification):
    """The digests of ``Content-Digest``, beside the ``checksum`` of tus where there is one.

    Raises:
        DigestMismatch: one of them has another length than its algorithm gives.
    """

    def __init__(
        self, digests: Digests, known: Mapping[str, Callable[[], Digest]], checksum: Verification | None = None
    ) -> None:
        if any(len(digest.digest) != known[digest.algorithm]().digest_size for digest in digests):
            raise DigestMismatch
        self._checksum = checksum
        self._digests = [Verification(digest, known) for digest in digests]
        self.has_passed = False

    def update(self, data: Buffer) -> None:
        """Count ``data`` in."""
        for verification in (*self._digests, *([self._checksum] if self._checksum else [])):
            verification.update(data)

    def check(self) -> None:
        """Raise ``ChecksumMismatch`` or ``DigestMismatch`` unless what was counted in has all of them."""
        if self._checksum is not None:
            self._checksum.check()
        try:
            for verification in self._digests:
                verification.check()
        except ChecksumMismatch:
            raise DigestMismatch from None
        self.has_passed = True


def parse_content_digest(fields: Fields) -> Digests:
    """Return the digests of this request's content that can be verified. Source: RFC 9530, 2."""
    return _known(dictionary(fields, "content-digest"))


def parse_repr_digest(fields: Fields) -> str:
    """Return what ``Repr-Digest`` says of the whole upload and can be verified, as the field; ``""`` for nothing.

    Source: RFC 9530, 3.
    """
    return build_digests(_known(dictionary(fields, "repr-digest")))


def parse_digests(text: str) -> Digests:
    """Return the digests in a field as ``build_digests`` writes it."""
    try:
        return _known(parse_dictionary(text))
    except Malformed:
        return ()


def build_digests(digests: Iterable[Checksum]) -> str:
    """Write a digest field."""
    return build_dictionary({_NAMES[digest.algorithm]: Item(digest.digest) for digest in digests})


def settle_digests(recorded: str, declared: str) -> str:
    """Return what is to be verified in the end: what was recorded before, and what a later request declares.

    Raises:
        BadRequest: they contradict each other.
    """
    before = {digest.algorithm: digest for digest in parse_digests(recorded)}
    for digest in parse_digests(declared):
        if before.setdefault(digest.algorithm, digest) != digest:
            raise BadRequest(
                "ERR_INVALID_DIGEST", "Repr-Digest is another one than before; send that of the whole file, or none"
            )
    return build_digests(before.values())


def answer_wish(fields: Fields, repr_digest: str) -> tuple[tuple[str, str], ...]:
    """Return ``Repr-Digest`` for a client that wants one, and of those that are known the one that it likes best.

    A preference of 0 means that it is not wanted. Source: RFC 9530, 4.
    """
    wishes = dictionary(fields, "want-repr-digest")
    liked = [(_preference(wishes, digest), digest) for digest in parse_digests(repr_digest)]
    best = max(liked, key=lambda entry: entry[0], default=(0, None))
    return (("Repr-Digest", build_digests([best[1]])),) if best[0] and best[1] is not None else ()


def _preference(wishes: Mapping[str, object], digest: Checksum) -> int:
    wish = wishes.get(_NAMES[digest.algorithm])
    value = wish.value if isinstance(wish, Item) else 0
    return value if type(value) is int and 0 < value <= 10 else 0


def _known(members: Mapping[str, object]) -> Digests:
    """Return what can be verified of ``members``; one that is no byte sequence spoils all of them."""
    if not members:
        return ()
    values = {name: member.value if isinstance(member, Item) else None for name, member in members.items()}
    if not all(isinstance(value, bytes) for value in values.values()):
        return ()
    return tuple(
        Checksum(ALGORITHMS[name], value)
        for name, value in values.items()
        if name in ALGORITHMS and isinstance(value, bytes)
    )
