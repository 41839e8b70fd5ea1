"""Mix recordings to mono, and find what is wrong with them: the one place that knows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats
from wavegen.audio.read import AudioInfo, Recording
from wavegen.errors import AudioError
from wavegen.text import group_names, list_first, pluralize, printable

INAUDIBLE = 1e-6  # -120 dB, a thirtieth of a 16-bit step: not worth scaling up
LOST_DB = 6.0  # that a mix may be below its loudest channel
SILENT_CHANNEL_DB = 60.0  # below the loudest
INTEGER_BITS = (16, 24, 32)  # of samples that were stored as floats without scaling
MAX_AMPLITUDE = 1000.0  # 60 dB above full scale: no sound
CLIPPED_SHARE = 1e-4  # a normalized file reaches full scale once or twice without being clipped
DC_OFFSET = 0.05  # of full scale; the preparation removes it
MISSING_SECONDS = 0.1  # headers of lossy formats count some padding: less is not reported
CUT_OFF = "damaged or cut off"  # a kind of warning
QUIET_PEAK = 0.01  # -40 dB: a quarter of 256 mu-law classes, and 3 linear ones
LOUD_PEAK = 1.25  # resampling and lossy formats overshoot by less
# Commands that write a right header, by container; ffmpeg believes some of the wrong ones.
IGNORE_LENGTH = "ffmpeg -ignore_length 1 -i {} -c copy {}"
REPAIRS = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64"), IGNORE_LENGTH),
    "AIFF": "sox --ignore-length {} {}",
    "FLAC": "ffmpeg -i {} {}",
    "CAF": "",
}

# The largest amplitude of telephone companding is below 1 (ITU-T G.711, tables 1a and 2a).
LARGEST = {"ULAW": 32124 / 32768, "ALAW": 32256 / 32768}


class MonoMixer:
    """Mixes a recording to mono, block by block, and measures it meanwhile.

    The mix is the mean of the channels. Where it is more than ``LOST_DB`` below the loudest channel, silent channels
    are left out of the mean. Where that does not help, the channels cancel, and the loudest one is taken alone. Samples
    that were stored as floats and are all whole numbers are scaled. Both are known at the end: see ``is_settled``.

    Args:
        path: of the recording.
        info: its header.

    Attributes:
        channels: those that are mixed.
        scale: that all samples are multiplied by.
        n_frames, n_clipped: samples per channel so far, and samples at full scale.
        lowest, highest: amplitude of the mix.
    """

    def __init__(self, path: Path, info: AudioInfo) -> None:
        self.path, self.info, self.channels, self.scale = path, info, list(range(info.channels)), 1.0
        self._full_scale, self._what = _full_scale(info), list[str]()
        self._restart()

    def _restart(self) -> None:
        self.n_frames = self.n_clipped = 0
        self.lowest, self.highest = math.inf, -math.inf
        self._loudest = 0.0
        self._sums, self._products = np.zeros(self.info.channels), np.zeros((self.info.channels, self.info.channels))
        self._is_whole = self.info.encoding in ("FLOAT", "DOUBLE")

    def mix(self, block: Floats) -> Floats:
        """Return the (T,) mix of a (T, channels) block."""
        if self.scale != 1.0:
            block = block * np.float32(self.scale)
        magnitude = np.abs(block)
        self._loudest = max(self._loudest, float(magnitude.max()))
        self._is_whole = self._is_whole and bool((block == np.rint(block)).all())
        self.n_clipped += int(np.count_nonzero(magnitude >= self._full_scale))
        self.n_frames += len(block)
        self._sums += block.sum(axis=0, dtype=np.float64)
        if block.shape[1] > 1:
            wide = block.astype(np.float64)
            self._products += wide.T @ wide
        mixed = to_mono(block if len(self.channels) == block.shape[1] else block[:, self.channels])
        self.lowest, self.highest = min(self.lowest, float(mixed.min())), max(self.highest, float(mixed.max()))
        return mixed

    def is_settled(self) -> bool:
        """Return whether the mix was right; if not, the recording has to be mixed once more, from its start.

        Raises:
            AudioError: its samples are neither sound nor whole numbers.
        """
        if self._is_whole and self._loudest > 1:
            largest = next(1 << (bits - 1) for bits in INTEGER_BITS if self._loudest <= 1 << (bits - 1))
            self.scale, self._full_scale = 1 / largest, 1 - 1 / largest
            self._what.append(f"integers stored as floats: scaled by 1/{largest:,}")
            self._restart()
            return False
        if self._loudest > MAX_AMPLITUDE:
            raise AudioError(
                f"{printable(self.path)}: expected samples within [-1, 1], found up to {self._loudest:.3g}; export it"
                " again as 16 or 24-bit audio"
            )
        means = self._sums / self.n_frames
        channels, what = choose_channels(self._products / self.n_frames - np.outer(means, means))
        if channels == self.channels:
            return True
        self.channels = channels
        self._what.append(what)
        self._restart()
        return False

    @property
    def dc_offset(self) -> float:
        """The mean of the channel that has most, in parts of full scale."""
        means = self._sums / self.n_frames
        return float(means[np.argmax(np.abs(means))])

    @property
    def clipped_share(self) -> float:
        """Share of the samples at full scale; 0 of floats beyond it, whose full scale is another."""
        is_open = self.info.encoding in ("FLOAT", "DOUBLE") and self._loudest > 1
        return 0.0 if is_open else self.n_clipped / (self.n_frames * self.info.channels)

    def warnings(self, recording: Recording) -> list[str]:
        """Return what is wrong with the recording: a kind each and, behind a colon, the details."""
        found = list(self._what)
        mean = self._sums[self.channels].mean() / self.n_frames
        if max(self.highest - mean, mean - self.lowest) < INAUDIBLE:
            found.append("silent from end to end")
        if self.clipped_share >= CLIPPED_SHARE:
            found.append(f"clipped: {self.clipped_share:.2%} of its samples are at full scale")
        if abs(self.dc_offset) >= DC_OFFSET:
            found.append(f"DC offset: {self.dc_offset:+.3f}")
        missing, path = recording.missing_seconds, recording.path
        damage = f" ({recording.damage})" if recording.damage else ""
        if missing > MISSING_SECONDS:
            found.append(f"{CUT_OFF}: {missing:.2f} s less than its header claims{damage}; copy it again")
        # an MP3 may be damaged in its next stream
        elif damage and (recording.info.claimed_seconds is None or recording.info.container == "MP3"):
            found.append(f"{CUT_OFF}: ended at {recording.seconds:.2f} s{damage}; copy it again")
        elif missing < -MISSING_SECONDS:
            command = REPAIRS.get(recording.info.container, "ffmpeg -i {} -c copy {}")
            repaired = path.with_stem(f"{path.stem}-repaired")
            repaired = repaired.with_suffix(".wav") if command == IGNORE_LENGTH else repaired
            names = (shlex.quote(printable(name)) for name in (path, repaired))
            remedy = f"repair it: {command.format(*names)}" if command else "export it again"
            counts = f"{recording.seconds + missing:.2f} s of {recording.seconds:.2f} s"
            found.append(f"wrong header: it counts {counts}, all of which is used; {remedy}")
        return found


def mono_passes(path: Path) -> Generator[tuple[Recording, MonoMixer], None, None]:
    """Yield a recording and its mixer, twice or three times if the mix has to be corrected: the last one counts.

    Each time all blocks have to be mixed.

    Raises:
        UsageError, AudioError: as ``Recording``, or its samples are no sound.
    """
    mixer: MonoMixer | None = None
    while mixer is None or not mixer.is_settled():
        with closing(Recording(path)) as recording:
            mixer = mixer or MonoMixer(path, recording.info)
            yield recording, mixer


def choose_channels(covariance: npt.NDArray[np.float64]) -> tuple[list[int], str]:
    """Choose the channels to mix.

    Args:
        covariance: (channels, channels) of the recording's channels.

    Returns:
        The channels, and why they are not all.
    """
    powers = np.diag(covariance)
    every, loudest = list(range(len(powers))), int(np.argmax(powers))
    sounding = np.flatnonzero(powers > powers[loudest] * 10 ** (-SILENT_CHANNEL_DB / 10)).tolist() or every

    def lost_db(channels: Sequence[int]) -> float:
        mixed = covariance[np.ix_(channels, channels)].mean()
        return 10 * math.log10(powers[loudest] / mixed) if mixed > 0 else math.inf

    if len(every) == 1 or powers[loudest] <= INAUDIBLE**2 or lost_db(every) <= LOST_DB:
        return every, ""
    if lost_db(sounding) <= LOST_DB:
        silent = [str(channel + 1) for channel in every if channel not in sounding]
        return sounding, f"silent channels: {list_first(silent, separator=', ')} of {len(every)}, left out of the mix"
    lost = min(lost_db(every), 120.0)
    return [loudest], f"channels cancel: their mix is {lost:.0f} dB quieter; channel {loudest + 1} is used alone"


def to_mono(frames: Floats) -> Floats:
    """Average the channels.

    Args:
        frames: (T, channels) float32.

    Returns:
        (T,) float32.
    """
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)


def group_warnings(found: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a line for each kind of warning, with the first files that have it.

    Args:
        found: files' names and their warnings.
    """
    each = ((name, *warning.partition(": ")) for name, warnings in found for warning in warnings)
    kinds = group_names((f"{name} ({details})" if details else name, kind) for name, kind, _, details in each)
    return [
        f"{kind[0].upper()}{kind[1:]}: {pluralize(len(names), 'file')}: {list_first(names)}."
        for kind, names in kinds.items()
    ]


def _full_scale(info: AudioInfo) -> float:
    """Return the magnitude from which on a sample counts as clipped."""
    if info.encoding.startswith("PCM_") and info.bits is not None:
        return 1.0 - 2.0 ** (1 - info.bits)  # the largest positive sample; the negative one is 1
    return LARGEST.get(info.encoding, 1.0)
