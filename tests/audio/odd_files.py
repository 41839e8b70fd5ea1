"""Make a folder of odd audio files, of which it is known how many seconds each holds, or why it cannot be used.

Most are written byte by byte or by libsndfile; those of other encoders only where ffmpeg is installed. Run as a script:

    python tests/audio/odd_files.py FOLDER
"""

import io
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
FFMPEG = shutil.which("ffmpeg")


def tone(seconds=2.0, rate_hz=RATE, amplitude=0.4, seed=0):
    """A tone under noise that is nowhere silent."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    rng = np.random.default_rng(seed)
    return (amplitude * np.sin(2 * np.pi * 300 * time) + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def encode(waveform, container="WAV", subtype=None, rate_hz=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def pcm(waveform):
    return np.round(waveform * 32767).astype("<i2").tobytes()


def chunk(identifier, content, order="<"):
    return identifier + struct.pack(f"{order}I", len(content)) + content + bytes(len(content) % 2)


def wav(samples, *, declared=None, behind=b"", before=b"", riff_size=None, kind=1, bits=16, channels=1, rate_hz=RATE):
    """A WAV file; ``declared`` bytes are in its header, whatever there is."""
    frame = channels * bits // 8
    head = b"WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * frame, frame, bits))
    size = len(samples) if declared is None else declared
    body = head + before + b"data" + struct.pack("<I", size) + samples + behind
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def with_bytes(content, at, new):
    return content[:at] + new + content[at + len(new) :]


def behind(content, identifier):
    return content.index(identifier) + len(identifier)


def claiming(flac, frames):
    """A FLAC file whose header claims another length."""
    word = int.from_bytes(flac[18:26], "big") >> 36 << 36 | frames
    return with_bytes(flac, 18, word.to_bytes(8, "big"))


def by_ffmpeg(folder, name, waveform, *options):
    """Encode by ffmpeg; returns the file's content."""
    soundfile.write(folder / "source.wav", waveform, 44100)
    command = [FFMPEG, "-v", "error", "-y", "-i", folder / "source.wav", *options, folder / name]
    subprocess.run(command, check=True)
    (folder / "source.wav").unlink()
    return (folder / name).read_bytes()


def make_odd_files(folder):
    """Write the files.

    Returns:
        For each name the seconds that can be decoded, or (a str) a part of the reason why nothing can.
    """
    folder.mkdir(parents=True, exist_ok=True)
    x, n = tone(), len(pcm(tone()))
    two = np.stack([x, tone(seed=1)], axis=1)
    known = {}

    def add(name, content, outcome):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        known[name] = outcome

    # --- WAV: sizes
    add("plain.wav", wav(pcm(x)), 2.0)
    add("counts half.wav", wav(pcm(x), declared=n // 2), 2.0)
    add("recorder died.wav", wav(pcm(x), declared=0, riff_size=36), 2.0)
    add("recorder died, both sizes 0.wav", wav(pcm(x), declared=0, riff_size=0), 2.0)
    add("to a pipe.wav", wav(pcm(x), declared=2**32 - 1, riff_size=2**32 - 1), 2.0)
    add("to a pipe by sox.wav", wav(pcm(x), declared=0x7FFFF000), 2.0)
    add("to a pipe by arecord.wav", wav(pcm(x), declared=0x80000000), 2.0)
    add("half copied.wav", wav(pcm(x))[: 44 + n // 2], 1.0)
    add("one byte too many.wav", wav(pcm(x) + b"\x01"), 2.0)
    add("list behind.wav", wav(pcm(x), behind=chunk(b"LIST", b"INFOIART\4\0\0\0me\0\0")), 2.0)
    add("id3 behind.wav", wav(pcm(x), behind=chunk(b"id3 ", b"ID3\3\0\0\0\0\0\0" * 9)), 2.0)
    add("bext behind.wav", wav(pcm(x), behind=chunk(b"bext", bytes(range(256)) * 3)), 2.0)
    add("bext before.wav", wav(pcm(x), before=chunk(b"bext", bytes(602))), 2.0)
    add("tag behind.wav", wav(pcm(x), behind=b"TAG" + bytes(125)), 2.0)
    add("list cut off.wav", wav(pcm(x), behind=chunk(b"LIST", bytes(400))[:100]), 2.0)
    add("zeros behind.wav", wav(pcm(x), behind=bytes(4096)), 2.0)
    add("another behind.wav", wav(pcm(x), behind=wav(pcm(x))), 4.0)
    add("no samples.wav", wav(b""), "no audio in it")
    add("no samples, but a list.wav", wav(b"", behind=chunk(b"LIST", bytes(40))), "no audio in it")
    add("header cut off.wav", wav(pcm(x))[:30], "libsndfile cannot read it")
    # --- WAV: samples
    add("8 bit.wav", encode(x, subtype="PCM_U8"), 2.0)
    add("24 bit.wav", encode(x, subtype="PCM_24"), 2.0)
    add("32 bit.wav", encode(x, subtype="PCM_32"), 2.0)
    add("adpcm.wav", encode(x, subtype="IMA_ADPCM"), 2.02)
    add("mu-law.wav", encode(x, subtype="ULAW"), 2.0)
    add("floats.wav", encode(x, subtype="FLOAT"), 2.0)
    add("doubles.wav", encode(x, subtype="DOUBLE"), 2.0)
    add("extensible.wav", encode(two, "WAVEX", "PCM_24"), 2.0)
    add("integers as floats.wav", encode(np.round(32767 * x), subtype="FLOAT"), 2.0)
    add("out of scale.wav", encode(32767 * x, subtype="FLOAT"), "expected samples within")
    add("one huge sample.wav", encode(np.append(x, np.float32(1e29)), subtype="FLOAT"), "expected samples within")
    add("not a number.wav", encode(np.append(x, np.float32("nan")), subtype="FLOAT"), "expected samples within")
    add("silent.wav", wav(bytes(n)), 2.0)
    add("clipped.wav", encode(np.clip(5 * x, -1, 1)), 2.0)
    add("offset.wav", encode(x / 2 + 0.3), 2.0)
    add("one sample.wav", wav(pcm(x[:1])), 1 / RATE)
    add("192 kHz.wav", encode(tone(rate_hz=192_000), rate_hz=192_000), 2.0)
    add("11,127 Hz.wav", encode(tone(rate_hz=11_127), rate_hz=11_127), 2.0)
    # --- WAV: channels
    add("stereo.wav", encode(two), 2.0)
    add("stereo that cancels.wav", encode(np.stack([x, -x], axis=1)), 2.0)
    add("one side.wav", encode(np.stack([x, 0 * x], axis=1)), 2.0)
    add("two of six.wav", encode(np.concatenate([two, np.zeros((len(x), 4))], axis=1)), 2.0)
    # --- other containers
    wide, aiff, caf = encode(x, "W64"), encode(x, "AIFF"), encode(x, "CAF")
    add("wide.w64", wide, 2.0)
    add("half copied.w64", wide[: len(wide) - n // 2], 1.0)
    add("plain.rf64", encode(x, "RF64"), 2.0)
    rf64 = encode(x, "RF64")
    add("recorder died.rf64", with_bytes(rf64, behind(rf64, b"ds64") + 4, bytes(24)), 2.0)
    add("plain.aiff", aiff, 2.0)
    add("half copied.aiff", aiff[: len(aiff) - n // 2], 1.0)
    add("counts half.aiff", with_bytes(aiff, behind(aiff, b"SSND"), struct.pack(">I", n // 2 + 8)), 2.0)
    add("plain.caf", caf, 2.0)
    add("counts half.caf", with_bytes(caf, behind(caf, b"data"), struct.pack(">Q", n // 2 + 4)), 2.0)
    au = encode(x, "AU")
    add("plain.au", au, 2.0)
    add("counts half.au", with_bytes(au, 8, struct.pack(">I", n // 2)), 2.0)
    add("recorder died.au", with_bytes(au, 8, bytes(4)), 2.0)
    # --- compressed
    flac, ogg = encode(x, "FLAC"), encode(x, "OGG")
    long_flac = encode(tone(20.0), "FLAC")
    add("plain.flac", flac, 2.0)
    add("to a pipe.flac", claiming(flac, 0), 2.0)
    add("counts half.flac", claiming(flac, RATE), 2.0)
    add("tag behind.flac", flac + b"TAG" + bytes(125), 2.0)
    add("half copied.flac", long_flac[: len(long_flac) // 2], (8.0, 12.0))
    add("plain.ogg", ogg, 2.0)
    add("two in a row.ogg", ogg + encode(tone(3.0, seed=2), "OGG"), 5.0)
    add("two rates.ogg", ogg + encode(tone(3.0, rate_hz=16_000), "OGG", rate_hz=16_000), 2.0)
    long_ogg, long_opus = encode(tone(20.0), "OGG"), encode(tone(20.0, 48_000), "OGG", "OPUS", 48_000)
    add("half copied.ogg", long_ogg[: len(long_ogg) // 2], (5.0, 12.0))
    add("no end.ogg", long_ogg[: long_ogg.rindex(b"OggS")], (15.0, 20.0))
    add("opus.opus", encode(tone(rate_hz=48_000), "OGG", "OPUS", 48_000), 2.0)
    add("half copied.opus", long_opus[: len(long_opus) // 2], (8.0, 12.0))
    mp3 = encode(tone(3.0, 44_100), "MP3", rate_hz=44_100)
    add("plain.mp3", mp3, 3.0)
    add("two in a row.mp3", mp3 + encode(tone(4.0, 44_100, seed=3), "MP3", rate_hz=44_100), 7.0)
    add("page before.mp3", b"<html>\xff\xfb\x90</html>\n" * 4000 + mp3, 3.0)
    add("tag behind.mp3", mp3 + b"TAG" + bytes(125), 3.0)
    # --- not what they are called, or nothing
    add("empty.wav", b"", "the file is empty")
    add("text.wav", b"a shopping list\n" * 99, "no audio format is recognized")
    add("pointer.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull")
    add("flac inside.wav", flac, 2.0)
    add("wav inside.mp3", wav(pcm(x)), 2.0)
    add("film inside.wav", b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(2000), "no audio format is recognized")
    add("phone.m4a", b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(2000), "ffmpeg")
    add("sub/deep/ünï cödé.wav", wav(pcm(x)), 2.0)
    if FFMPEG is not None:
        loud = np.concatenate([0.02 * tone(20.0, 44_100), tone(40.0, 44_100)])
        for name, *options in (
            ("no xing.mp3", "-c:a", "libmp3lame", "-q:a", "5", "-write_xing", "0", "-id3v2_version", "0"),
            ("constant.mp3", "-c:a", "libmp3lame", "-b:a", "64k", "-write_xing", "0"),
            ("variable.mp3", "-c:a", "libmp3lame", "-q:a", "5"),
            ("layer 2.mp2", "-c:a", "mp2"),
            ("opus at a low rate.opus", "-c:a", "libopus", "-b:a", "12k"),
            ("big-endian.aiff", "-c:a", "pcm_s24be"),
        ):
            by_ffmpeg(folder, name, loud, *options)
            known[name] = 60.0
    return known


if __name__ == "__main__":
    for name, outcome in make_odd_files(Path(sys.argv[1])).items():
        print(f"{name}: {outcome}")
