"""Small recordings in the formats that people send, written by hand: headers are right, the sound is silence."""

import io
import struct
import wave
from collections.abc import Callable, Mapping


def wav(seconds: float, *, told: bool = True) -> bytes:
    """16 bits at 16 kHz. told: whether the data's size was known when its header was written."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(int(seconds * 16_000) * 2))
    content = file.getvalue()
    return content if told else content.replace(b"data" + content[40:44], b"data\xff\xff\xff\xff")


def mp3(seconds: float, *, cover_bytes: int = 0) -> bytes:
    """MPEG 1 layer 3, 128 kbit/s at 44.1 kHz: frames of 1,152 samples in 417 bytes; a cover in ID3 before them."""
    size = bytes((cover_bytes >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\x00\x00" + size + bytes(cover_bytes) if cover_bytes else b""
    frame = b"\xff\xfb\x90\x64" + bytes(413)
    return tag + frame * round(seconds * 44_100 / 1_152)


def flac(seconds: float) -> bytes:
    """STREAMINFO alone: 16 kHz, one channel of 16 bits."""
    info = struct.pack(">HH3s3sQ16s", 4096, 4096, b"", b"", 16_000 << 44 | 15 << 36 | int(seconds * 16_000), b"")
    return b"fLaC\x80" + len(info).to_bytes(3, "big") + info + bytes(64)


def ogg(seconds: float) -> bytes:
    """Opus: pages of a second each."""

    def page(number: int, kind: int, granule: int, packets: list[bytes]) -> bytes:
        head = struct.pack("<4sBBqIIIB", b"OggS", 0, kind, granule, 7, number, 0, len(packets))
        return head + bytes(map(len, packets)) + b"".join(packets)

    skipped = 312
    pages = [
        page(0, 2, 0, [b"OpusHead" + struct.pack("<BBHIHB", 1, 1, skipped, 48_000, 0, 0)]),
        page(1, 0, 0, [b"OpusTags" + struct.pack("<I4sI", 4, b"test", 0)]),
    ]
    granules = [*range(48_000, int(seconds * 48_000), 48_000), int(seconds * 48_000)]
    for number, granule in enumerate(granules, 2):
        kind = 4 if number == len(granules) + 1 else 0
        pages.append(page(number, kind, granule + skipped, [bytes(40)] * 50))
    return b"".join(pages)


def m4a(seconds: float) -> bytes:
    """The movie's header comes after its data, as recorders write it."""

    def atom(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", len(content) + 8, kind) + content

    header = struct.pack(">IIIII80x", 0, 0, 0, 48_000, int(seconds * 48_000))
    return (
        atom(b"ftyp", b"M4A \x00\x00\x00\x00M4A ") + atom(b"mdat", bytes(5_000)) + atom(b"moov", atom(b"mvhd", header))
    )


def webm(seconds: float, *, told: bool = True) -> bytes:
    """Clusters of up to a second with a block each 20 ms.

    told: whether the duration and the sizes of segment and clusters are there; a browser that records has none.
    """
    unknown = b"\x01\xff\xff\xff\xff\xff\xff\xff"

    def element(kind: int, content: bytes, *, sized: bool = True) -> bytes:
        length = (1 << 56 | len(content)).to_bytes(8, "big") if sized else unknown
        return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + length + content

    duration = element(0x4489, struct.pack(">d", seconds * 1_000)) if told else b""
    info = element(0x1549A966, element(0x2AD7B1, (1_000_000).to_bytes(3, "big")) + duration)
    clusters = b""
    end_ms = round(seconds * 1_000)
    for start_ms in range(0, end_ms + 1, 1_000):
        blocks = b"".join(
            element(0xA3, b"\x81" + struct.pack(">hB", at_ms - start_ms, 0x80) + bytes(20))
            for at_ms in range(start_ms, min(start_ms + 1_000, end_ms + 1), 20)
        )
        clusters += element(0x1F43B675, element(0xE7, start_ms.to_bytes(4, "big")) + blocks, sized=told)
    head = element(0x1A45DFA3, element(0x4282, b"webm"))
    return head + element(0x18538067, info + clusters, sized=told)


FORMATS: Mapping[str, Callable[[float], bytes]] = {
    "wav": wav, "mp3": mp3, "flac": flac, "ogg": ogg, "m4a": m4a, "webm": webm,
}  # fmt: skip
