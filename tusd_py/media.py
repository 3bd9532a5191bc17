"""What may be uploaded: the name's extension and the first bytes, against the types that are allowed.

Nothing here waits, and nothing is read from a disk: the beginning of an upload is handed in. The client's name decides
which family of types the content has to belong to, and goes no further: puremagic never sees it (its 2.x opens the
file of that name if there is one), and a path gets the extension alone, after one grammar looked at it.

What the bytes say comes from two sources. ``SIGNATURES`` and ``_frame`` speak for the types that puremagic takes for
something else or for nothing, and for those that arrive most; puremagic, in every version that we support, speaks for
all the others. It looks through its whole table each time, so it is asked last, and only where it may know something.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Literal

from tusd_py.errors import ContentRefused, ExtensionRefused
from tusd_py.upload import Metadata

Sniff = Literal["lenient", "strict", "off"]

# A frame of MPEG audio has up to 1,729 bytes, and only the next one proves it: both fit, behind a short tag too.
SNIFF_SIZE = 4096
# Here ends the signature of tar, the deepest of the common ones. With fewer bytes we wait instead of judging.
ENOUGH = 262
# What ends before this is cut in the middle of its signature, and RIFF or ftyp do not tell yet what they begin.
SHORTEST_PROOF = 16

ALL = "*"
UNKNOWN = ".bin"
EXTENSION_GRAMMAR = re.compile(r"\.[A-Za-z0-9]{1,16}")

# Extensions that name each other's files often enough in the wild, the commonest first.
FAMILIES: tuple[tuple[str, ...], ...] = (
    (".mp3", ".mp2", ".mp1", ".mpga"),
    (".wav",),
    (".aac",),
    (".flac",),
    (".amr", ".awb"),
    (".ogg", ".oga", ".opus", ".ogv", ".ogx", ".spx"),
    (".wma", ".wmv", ".asf"),
    (".mp4", ".m4a", ".m4v", ".m4b", ".f4v", ".f4a"),
    (".3gp", ".3gpp", ".3g2"),
    (".mov", ".qt"),
    (".mkv", ".webm", ".mka"),
    (".avi",),
)
FAMILY = {extension: frozenset(family) for family in FAMILIES for extension in family}

# What we recognise ourselves, as it begins. A row is a proof: it cannot match by chance, and no sentence begins so.
SIGNATURES: tuple[tuple[re.Pattern[bytes], frozenset[str]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), frozenset(extensions.split()))
    for pattern, extensions in (
        (rb"#!AMR(_MC1\.0)?\n", ".amr"),
        (rb"#!AMR-WB(_MC1\.0)?\n", ".awb"),
        (rb"(RIFF|RIFX|RF64|BW64)....WAVE", ".wav"),
        (rb"RIFF....AVI[ X]", ".avi"),
        # ISO base media: the major brand, a version, the compatible brands. A still image is no film, whatever it
        # says that it is compatible with.
        (rb"....ftyp(?!qt  |M4[AB] |3g|hei|hev|mif1|msf1|avi[fs]|crx |jp)", ".mp4"),
        (rb"....ftypM4[AB] ", ".m4a .m4b"),
        (rb"....ftyp3g..(....){1,12}?(isom|mp4[12])", ".mp4"),
        (rb"....ftyp(....){0,12}?3g", ".3gp"),
        (rb"....ftyp(....){0,12}?qt  ", ".mov"),
        (rb"....(styp|sidx|moof)", ".mp4"),
        # ISO/IEC 14496-12, 4.3.1: a file without ftyp is read as an mp4; QuickTime never asked for it either.
        (rb"(....(moov|mdat)|[\0-\x1f]...(free|skip))", ".mov .mp4"),
        (rb"(....pnot|[\0-\x1f]...wide)", ".mov"),
        (rb"\xff\xd8\xff[\xc0-\xfe]", ".jpg .jpeg"),
        (rb"\x1f\x8b\x08[\0-\x1f]", ".gz .tgz"),
        (rb"BZh[1-9]1AY&SY", ".bz2"),
        (rb"MZ.{60}\0\0", ".exe .dll"),
        (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|script)[\s>]", ".html .htm"),
        (rb"#! ?/", ".sh"),
        # puremagic says the same of these; they are here because they come all the time.
        (rb"fLaC[\0\x80]\0\0\x22", ".flac"),
        (rb"OggS\0", ".ogg .opus"),
        (rb"\x1aE\xdf\xa3", ".webm"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", ".asf .wma .wmv"),
    )
)
# puremagic sees RIFF and says wav, avi and webp at once, takes the letters ID3 for an mp3 and every mp4 for a 3gp.
OURS = frozenset(
    chain.from_iterable(FAMILY[name] for name in (".mp3", ".wav", ".aac", ".amr", ".mp4", ".3gp", ".mov", ".avi"))
)

# A type that anything may be wrapped in says nothing against an extension that we know nothing about.
WRAPPINGS = frozenset({".zip", ".gz", ".xml"})

# The bytes that text consists of, in UTF-8 and in the older eight-bit encodings alike (file(1) draws the same line).
TEXT = bytes([7, 8, 9, 10, 12, 13, 27, *range(0x20, 0x7F), *range(0x80, 0x100)])

# ID3v2, section 3.1: version and revision, flags, and a size of four times seven bits.
TAG = re.compile(rb"ID3[\x02-\x04][^\xff](.)([\0-\x7f]{4})", re.DOTALL)
TAGGED = frozenset({".mp3", ".mp2", ".aac", ".flac"})

# ISO/IEC 11172-3, 2.4.2.3: kbit/s by whether it is MPEG version 1, and by the bits of the layer (1 is III, 2 is II).
BITRATES = {
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
FRAME_HEADER = 7


@dataclass(frozen=True, slots=True)
class MediaRules:
    """Which uploads are taken, by name and by content.

    ``allowed`` are extensions, lower case with their dot, in the configured order, or ``("*",)`` for every name.
    ``sniff`` says how the content is judged: ``lenient`` refuses what is positively of another family than the name
    says, ``strict`` demands that it is recognised as one of the family, ``off`` looks at names alone.
    """

    allowed: tuple[str, ...]
    sniff: Sniff = "lenient"

    @classmethod
    def of(cls, allowed: str | Iterable[str], sniff: Sniff = "lenient") -> MediaRules:
        """Return the rules for extensions as people write them: ``MP3``, ``.mp3``, ``"mp3, wav"`` or ``*``.

        Raises:
            ValueError: one of them is no extension, or there is none.
        """
        words = re.split(r"[\s,]+", allowed) if isinstance(allowed, str) else [word.strip() for word in allowed]
        words = [word for word in words if word]
        if not words:
            raise ValueError(f"no extension is allowed; name at least one, such as .mp3, or {ALL} for all of them")
        if ALL in words:
            return cls((ALL,), sniff)
        for word in words:
            if not EXTENSION_GRAMMAR.fullmatch("." + word.removeprefix(".")):
                raise ValueError(f"{word!r} is no extension; write a dot and 1 to 16 letters or digits, as in .mp3")
        return cls(tuple(dict.fromkeys("." + word.removeprefix(".").lower() for word in words)), sniff)

    @property
    def allows_all(self) -> bool:
        """Whether every name is taken."""
        return self.allowed == (ALL,)

    def extension_of(self, filename: str) -> str:
        """Return what ``filename`` ends with, lower case with its dot, or ``""`` when a path must not end so.

        The end is taken literally: ``song.mp3.`` and ``song.mp3 `` have no extension, and neither has ``.mp3``, which
        is a hidden file. Of ``a.tar.gz`` it is ``.gz``. Both kinds of slashes end a folder.
        """
        name = re.split(r"[/\\]", filename)[-1]
        stem, dot, end = name.rpartition(".")
        # The grammar comes before lower(): the sign for Kelvin becomes a plain k there.
        if not stem.strip(".") or not EXTENSION_GRAMMAR.fullmatch(dot + end):
            return ""
        return (dot + end).lower()

    def check_name(self, metadata: Metadata) -> str:
        """Return the extension that the upload's file will end with, ``""`` when only its content can tell.

        That is so when the client sent no name (or an empty one), and for a name without a usable extension where
        all names are allowed.

        Raises:
            ExtensionRefused: the name ends with nothing that is allowed (400).
        """
        if not metadata.filename:
            return ""
        extension = self.extension_of(metadata.filename)
        if not self.allows_all and extension not in self.allowed:
            raise ExtensionRefused(extension=extension, allowed=self.allowed)
        return extension

    def check_content(self, extension: str, prefix: bytes, *, whole: bool) -> None:
        """Judge an upload that is to be named ``extension`` (``""`` when it has no name) by its first bytes.

        ``prefix`` is its beginning, at best ``SNIFF_SIZE`` bytes; ``whole`` tells that nothing follows. There is no
        verdict yet on a prefix shorter than ``ENOUGH`` bytes of an upload that goes on. The longer the prefix, the
        more can be recognised, so a second look at completion is worth its while.

        Without a name, the content has to be of any allowed family. Where all names are allowed, only those of the
        ``FAMILIES`` are held to what they say. Of an extension that nobody has a signature for (``.csv``) nothing can
        be demanded, so that ``strict`` means there: it is not recognised as anything else; ``lenient`` lets
        ``WRAPPINGS`` pass as well. An empty upload is not positively anything: only ``strict`` refuses it.

        Raises:
            ContentRefused: it is something else, or nothing known under ``strict`` (415).
        """
        if self.sniff == "off" or (len(prefix) < ENOUGH and not whole):
            return
        if self.allows_all and extension not in FAMILY:
            return
        claimed = (extension,) if extension else self.allowed
        family = _members(claimed)
        if any(not family.isdisjoint(kinds) for kinds in _looks(prefix, sure=False)):
            return
        proven = sniff(prefix, sure=True)
        if any(map(_is_recognisable, claimed)):
            refused = self.sniff == "strict" or bool(proven)
        else:
            refused = bool(proven) and (self.sniff == "strict" or proven.isdisjoint(WRAPPINGS))
        if refused:
            raise ContentRefused(extension=extension, allowed=claimed if self.allows_all else self.allowed)

    def extension_from_content(self, prefix: bytes) -> str:
        """Return the allowed extension that the first bytes suggest, for an upload without a name; else ``.bin``.

        Among several the order of the configuration decides; where all are allowed, that of ``FAMILIES``.
        """
        candidates = tuple(FAMILY) if self.allows_all else self.allowed
        kinds = sniff(prefix)
        if not kinds:
            return UNKNOWN
        relatives = (extension for extension in candidates if kinds & _members((extension,)))
        return next((extension for extension in candidates if extension in kinds), next(relatives, UNKNOWN))


def sniff(prefix: bytes, *, sure: bool = False) -> set[str]:
    """Return the extensions of all types that content beginning with ``prefix`` may have.

    Most of them are hints: two bytes are enough for one. With ``sure`` only those are left that are no accident: see
    ``_is_proof`` and ``_frames``. ``""`` stands for a known type without an extension, a Linux program for example.
    """
    return set().union(*_looks(prefix, sure=sure))


def _looks(prefix: bytes, *, sure: bool) -> Iterator[Set[str]]:
    """Give what ``sniff`` returns piece by piece, the dearest last: who has seen enough looks no further."""
    start = prefix[:SNIFF_SIZE]
    if sure and len(start) < SHORTEST_PROOF:
        return
    if TAG.match(start):
        yield from _behind_tags(start)
        return
    for pattern, extensions in SIGNATURES:
        if pattern.match(start):
            yield extensions
    yield _frames(start, sure=sure)
    yield _ask_puremagic(start, sure=sure)


def _behind_tags(start: bytes) -> Iterator[Set[str]]:
    """Give what may follow ID3 tags: what is seen there, everything that carries them where it lies too deep."""
    while tag := TAG.match(start):
        flags, size = tag[1][0], sum(byte << shift for byte, shift in zip(tag[2], (21, 14, 7, 0), strict=True))
        footer = 10 if flags & 0x10 else 0
        start = start[tag.end() + size + footer :]
    if len(start) < FRAME_HEADER:
        yield TAGGED
        return
    framed = _frames(start, sure=False) & TAGGED
    yield framed
    known = _ask_puremagic(start, sure=False) & TAGGED
    # Some taggers leave padding behind the end that they declare; then the tag alone has to do, and it says mp3.
    yield known if framed or known else {".mp3"}


def _frames(start: bytes, *, sure: bool) -> set[str]:
    """Return the kind of audio frame at ``start``; to be ``sure``, the frame behind it must be seen to begin, too."""
    kind, length = _frame(start)
    if not kind or (sure and _frame(start[length:])[0] != kind):
        return set()
    return {kind}


def _frame(data: bytes) -> tuple[str, int]:
    """Return kind and length in bytes of the ADTS or MPEG audio frame that ``data`` begins with, or ``("", 0)``.

    Layer I is left out: its FF FE also opens UTF-16 text, its FF FF any run of that byte, and nobody has such files.
    """
    if len(data) < FRAME_HEADER or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return "", 0
    if data[1] & 0xF6 == 0xF0:
        length = (data[3] & 0x03) << 11 | data[4] << 3 | data[5] >> 5
        is_valid = data[2] >> 2 & 0x0F <= 12 and length >= FRAME_HEADER
        return (".aac", length) if is_valid else ("", 0)
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    bitrate, rate, padding = data[2] >> 4, data[2] >> 2 & 3, data[2] >> 1 & 1
    if version == 1 or layer not in (1, 2) or bitrate == 15 or rate == 3 or data[3] & 3 == 2:
        return "", 0
    kind = ".mp3" if layer == 1 else ".mp2"
    if bitrate == 0:  # "free": the length is not told, so no second frame can prove this one
        return kind, len(data)
    samples = 72 if layer == 1 and version != 3 else 144
    bits_per_second = 1000 * BITRATES[version == 3, layer][bitrate - 1]
    return kind, samples * bits_per_second // SAMPLE_RATES[version][rate] + padding


def _ask_puremagic(start: bytes, *, sure: bool) -> set[str]:
    import puremagic  # reads its table of signatures when it is imported

    if not _may_be_known_to_puremagic(start):
        return set()
    try:
        matches = puremagic.magic_string(start)
    except puremagic.PureError:  # 1.x raises where 2.x returns an empty list
        return set()
    is_text = not start.translate(None, TEXT)
    kinds = {match.extension.lower() for match in matches if not sure or _is_proof(match.byte_match, is_text=is_text)}
    return kinds - OURS


def _may_be_known_to_puremagic(start: bytes) -> bool:
    """Tell whether one of its signatures matches; all that it says of content begins with that."""
    beginnings, endings = _signatures_of_puremagic()
    return any(
        start.startswith(signatures.get(start[offset : offset + 1], ()), offset)
        for offset, signatures in beginnings.items()
    ) or any(start[offset:].startswith(signature) for offset, signature in endings)


@cache
def _signatures_of_puremagic() -> tuple[Mapping[int, Mapping[bytes, tuple[bytes, ...]]], tuple[tuple[int, bytes], ...]]:
    """Return those of beginnings, by where they lie and by their first byte, and those of endings, each with its place.

    A place is an offset as Python counts it, from the end where it is negative.
    """
    from puremagic import main

    beginnings: dict[int, dict[bytes, tuple[bytes, ...]]] = defaultdict(dict)
    for row in main.magic_header_array:
        first = row.byte_match[:1]
        beginnings[row.offset][first] = (*beginnings[row.offset].get(first, ()), row.byte_match)
    return beginnings, tuple((row.offset, row.byte_match) for row in main.magic_footer_array)


def _is_proof(signature: bytes, *, is_text: bool) -> bool:
    """Tell whether finding ``signature`` is no accident.

    Text begins with any word, and words are signatures ("import ", "begin ", "Subject: "), so only markup counts there:
    ``<``, ``%PDF``, ``{\\rtf``. Elsewhere three bytes must differ, as zeros and FF fill files of any kind, and four are
    the least: random bytes match one of the seventy shorter signatures once in 240,000 times, one of the longer ones
    once in ten million. (What is common and short, gzip say, has a row of its own in ``SIGNATURES``.)
    """
    if len(signature) < 4:
        return False
    return signature[:1] in (b"<", b"%", b"{") if is_text else len(set(signature)) >= 3


@cache
def _known_to_puremagic() -> frozenset[str]:
    from puremagic import main

    rows = chain(main.magic_header_array, *main.multi_part_dict.values())
    return frozenset(row.extension.lower() for row in rows if _is_proof(row.byte_match, is_text=False))


def _is_recognisable(extension: str) -> bool:
    return extension in FAMILY or extension in _known_to_puremagic()


def _members(extensions: Iterable[str]) -> frozenset[str]:
    """Return these extensions and all their relatives."""
    return frozenset().union(*(FAMILY.get(extension, {extension}) for extension in extensions))
