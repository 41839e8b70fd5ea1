"""Find the samples of a file whose header disagrees with it: sizes that are 0, wrapped or too small, streams in a row.

libsndfile believes the header. Where that would lose sound, the decoder is given the parts of the file to read, each
with a corrected header in front. Where the file ends too early, the layout tells how much the header claims.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

WRAP = 1 << 32  # sizes of 32 bits are known up to multiples of this
PADDING_BYTES = 1 << 16  # as many zeros at the end fill up a sector
# What encoders write that do not know the length: near 2^31 or 2^32 (SoX, arecord, ffmpeg), all bits set in 64.
UNKNOWN = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, WRAP), range((1 << 63) - 1, 1 << 64))
TAGS = (b"TAG", b"ID3", b"APETAGEX")  # that end a file of any format
JUNK_BYTES = 1 << 20  # that may stand before an MP3's first frame: pictures, pages of a web server
# Four headers of MPEG frames of layer II or III, a frame's length apart: a single one stands in much that is no sound.
MPEG_FRAME = re.compile(rb"\xff([\xe2-\xe7\xf2-\xf7\xfa-\xff])[\x10-\xef](?=(?:.{20,1800}?\xff\1){3})", re.DOTALL)
CUT_TAIL = (b"LIST", b"id3 ", b"ID3 ", b"bext")  # chunks that are known for what they are even if they are cut off


class Part(NamedTuple):
    """A stretch of a file that the decoder takes for a whole file.

    Args:
        head: bytes in front of it.
        start, stop: of the stretch in the file, in bytes.
        is_endless: nothing is known of its length but by its own first frame, as of MP3; further ones may follow.
    """

    head: bytes
    start: int
    stop: int
    is_endless: bool = False


@dataclass(frozen=True)
class Layout:
    """Places of the samples in a file.

    Attributes:
        parts: to decode one after the other; none for a file that libsndfile reads as a whole.
        claim: samples that the header claims, as a share of those in ``parts`` or the file; None for no claim.
        frames: that a FLAC header claims; None for other formats.
        damage: that shows in the structure of the file; None for none.
    """

    parts: tuple[Part, ...] = ()
    claim: float | None = 1.0
    frames: int | None = None
    damage: str | None = None


class Chunks(NamedTuple):
    """A format of chunks, each with an identifier and a size.

    Args:
        first: offset of the first chunk.
        id_bytes: length of an identifier.
        size: format of a size, which begins behind the identifier.
        counts_itself: the size includes identifier and size.
        align: chunks begin at multiples of this.
        data: identifier of the samples' chunk.
        skip: bytes in it before the samples.
    """

    first: int
    id_bytes: int
    size: str
    counts_itself: bool
    align: int
    data: bytes
    skip: int


FORMATS = {
    **dict.fromkeys((b"RIFF", b"RF64", b"BW64"), Chunks(12, 4, "<I", False, 2, b"data", 0)),
    b"RIFX": Chunks(12, 4, ">I", False, 2, b"data", 0),
    b"FORM": Chunks(12, 4, ">I", False, 2, b"SSND", 8),
    b"caff": Chunks(8, 4, ">Q", False, 1, b"data", 4),
    b"riff": Chunks(40, 16, "<Q", True, 8, b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 0),
}


def find_layout(path: Path) -> Layout:
    """Return where the samples of a file are; of a format that is not known here, libsndfile's view.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        magic, begin = _read(file, 0, 10), 0
        has_id3 = magic[:3] == b"ID3" and len(magic) == 10
        if has_id3:
            # its size has seven bits in each byte
            begin = 10 + sum(byte << shift for byte, shift in zip(magic[6:], (21, 14, 7, 0), strict=True))
            magic = _read(file, begin, 4)
        try:
            if magic[:4] in FORMATS:
                return _of_chunks(file, begin, end)
            if magic[:4] in (b".snd", b"dns."):
                return _of_au(file, end)
            if magic[:4] == b"OggS":
                starts, is_whole = _chained_streams(file, end)
                parts = tuple(Part(b"", *each) for each in pairwise([*starts, end]))
                parts = parts if len(parts) > 1 else ()
                return Layout(parts) if is_whole else Layout(parts, None, damage="the end of its stream is missing")
            if magic[:4] == b"fLaC":
                word = int.from_bytes(_read(file, begin + 18, 8), "big")
                frames = word & ((1 << 36) - 1)  # the rest is the rate and the format
                head = _read(file, begin, 18) + (word - frames).to_bytes(8, "big")
                return Layout((Part(head, begin + 26, end),), 1.0 if frames else None, frames)
        except (struct.error, OverflowError):  # cut off within its header
            return Layout()
        if has_id3 or magic[:2] >= b"\xff\xe0":
            return Layout((Part(b"", 0, end, is_endless=True),))
        if path.suffix.lower() in (".mp3", ".mp2") and (frame := MPEG_FRAME.search(_read(file, 0, JUNK_BYTES))):
            return Layout((Part(b"", frame.start(), end, is_endless=True),))
    return Layout()


def _read(file: BinaryIO, at: int, n: int) -> bytes:
    file.seek(at)
    return file.read(n)


def _of_chunks(file: BinaryIO, begin: int, end: int) -> Layout:
    """Find the data of a file of chunks, and of further such files behind it."""
    form = FORMATS[_read(file, begin, 4)]
    field, chunks = form.id_bytes + struct.calcsize(form.size), dict[bytes, tuple[int, int]]()
    for at, identifier, size in _walk(file, begin + form.first, end, form):
        chunks[identifier] = at, size
        if identifier == form.data:
            break
    if form.data not in chunks:
        return Layout()
    at, size = chunks[form.data]
    start = at + field + form.skip
    if b"ds64" in chunks and size == WRAP - 1:
        (size,) = struct.unpack("<Q", _read(file, chunks[b"ds64"][0] + 16, 8))
    declared = max(0, size - form.skip - form.counts_itself * field)
    stop, following = _end_of_data(file, start, declared, end, form)
    present = stop - start
    parts: tuple[Part, ...] = ()
    if following is not None or declared < present:
        head = _read(file, begin, start - begin)
        total = present + form.skip + form.counts_itself * field
        parts = (Part(_with_size(head, at - begin, total, form), start, stop),)
    if following is not None:
        rest = _of_chunks(file, following, end)
        parts += rest.parts or (Part(b"", following, end),)
    return Layout(parts, _claim(size, declared, present))


def _claim(size: int, declared: int, present: int) -> float | None:
    """Return the samples that a header claims as a share of those present; None where it leaves them open."""
    is_open = declared != present and any(size in values for values in UNKNOWN)
    return None if is_open or not present else declared / present


def _walk(file: BinaryIO, at: int, end: int, form: Chunks) -> Iterator[tuple[int, bytes, int]]:
    """Yield offset, identifier and size of each chunk."""
    field = form.id_bytes + struct.calcsize(form.size)
    while at + field <= end:
        head = _read(file, at, field)
        (size,) = struct.unpack(form.size, head[form.id_bytes :])
        yield at, head[: form.id_bytes], size
        at += size + (0 if form.counts_itself else field)
        at += -at % form.align


def _end_of_data(file: BinaryIO, start: int, declared: int, end: int, form: Chunks) -> tuple[int, int | None]:
    """Return where the samples end, and where another file of the same format begins behind them, if one does.

    They end where the header says if what follows is chunks, a tag or padding; a size of 32 bits may have wrapped.
    Otherwise all that follows is samples.
    """
    for stop in range(start + declared, end + 1, WRAP):
        for after in {stop + -stop % form.align, stop}:
            is_tail, following = _is_tail(file, after, end, form)
            if is_tail:
                return stop, following
    return end, None


def _is_tail(file: BinaryIO, at: int, end: int, form: Chunks) -> tuple[bool, int | None]:
    """Return whether only chunks, tags or padding follow, and where another file begins, if one does."""
    if end - at < 8:
        return True, None
    for chunk, identifier, size in _walk(file, at, end, form):
        if identifier[:4] in FORMATS:
            return True, chunk
        if identifier.startswith(TAGS):
            return True, None
        if end - chunk <= PADDING_BYTES and not any(_read(file, chunk, PADDING_BYTES)):
            return True, None
        if not identifier[:4].isascii() or not identifier[:4].decode().isprintable():
            return False, None
        if chunk + size > end and identifier not in CUT_TAIL:
            return False, None
    return True, None


def _with_size(head: bytes, at: int, size: int, form: Chunks) -> bytes:
    """Return a header with another size of the samples' chunk, which begins at an offset; RIFF above 4 GiB as RF64."""
    if form != FORMATS[b"RIFF"] or (size < WRAP - 1 and head.startswith(b"RIFF")):
        field = at + form.id_bytes
        width = struct.calcsize(form.size)
        return head[:field] + struct.pack(form.size, min(size, (1 << 8 * width) - 1)) + head[field + width :]
    chunks = head[12:at]
    if chunks.startswith(b"ds64"):
        chunks = chunks[8 + struct.unpack("<I", chunks[4:8])[0] :]
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, size + len(chunks) + 56, size, 0, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + chunks + b"data\xff\xff\xff\xff"


def _of_au(file: BinaryIO, end: int) -> Layout:
    """Find the data of an AU file, behind which nothing else follows."""
    head = _read(file, 0, 12)
    order = ">" if head.startswith(b".snd") else "<"
    start, declared = struct.unpack(f"{order}II", head[4:])
    present = max(0, end - start)
    whole = head[:8] + struct.pack(f"{order}I", WRAP - 1) + _read(file, 12, start - 12)
    parts = (Part(whole, start, end),) if declared < present else ()
    return Layout(parts, _claim(declared, declared, present))


def _chained_streams(file: BinaryIO, end: int) -> tuple[list[int], bool]:
    """Return the offsets at which the chained streams of an Ogg file begin, and whether the last one's end is there.

    They begin with pages of beginnings after other pages (RFC 3533, section 6).
    """
    at, flags, starts = 0, 0, list[int]()
    while len(head := _read(file, at, 27)) == 27 and head.startswith(b"OggS"):
        if head[5] & 2 and not flags & 2:
            starts.append(at)
        flags = head[5]
        # behind the head the lengths of the page's segments, then the segments
        at += 27 + head[26] + sum(file.read(head[26]))
    return starts, bool(flags & 4) and at <= end
