"""Sampling: options checked against a model, each clip's past and random numbers, audio in chunks; one-shots."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import Frames
from wavegen.audio.levels import SILENT_DB, decibels
from wavegen.audio.mono import MAX_AMPLITUDE
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.data.conditioning import ClipCondition, Conditioner, list_labels, parse_label
from wavegen.device import available_cores, choose_device
from wavegen.errors import ParameterError, UsageError
from wavegen.model.outputs import ClassArray, Truncation
from wavegen.sampling.engines import Engine, EngineSource, SeededEngine, build_engine, choose_engine, faster_on_gpu

if TYPE_CHECKING:
    from wavegen.sampling.engines.packing import Precision

Label = str | Mapping[str, float]  # a name, "NAME=WEIGHT,NAME=WEIGHT", or weights by name

MAX_THREADS = 1024
MAX_SECONDS = 10_000_000  # a third of a year
PRIME_SECONDS = 600.0  # a longer past is beyond what any network remembers

# int8 weights are taken where they are asked for: 0.005 bits/sample tripled the silence in clips of speech, for what is
# rare, such as the end of a pause, suffers first; and little held-out audio measures such a cost badly.
AUTO_PRECISION: Precision = "bfloat16"
MAX_PRECISION_COST = 0.0005  # bits/sample
Notice = Callable[[str], None]

CHUNK_SAMPLES = 1600  # a tenth of a second at 16 kHz: the longest wait after Ctrl-C, and between progress updates
WORDS_PER_BLOCK = 4  # Philox4x64 gives four 64-bit numbers for each value of its counter

STEP_SECONDS = 0.02  # level is followed in steps of this length
LEVEL_STEPS = 5  # a level is that of 0.1 s
FADED_DB = 40.0  # below the loudest 0.1 s: inaudible behind a hit
FADED_STEPS = 10  # that a sound stays so quiet before it counts as over
FALLEN_DB, RISE_DB = 20.0, 15.0  # a rise of this size after a fall of this size begins the next sound
RISE_STEPS = 3  # within which it rises
LOOK_STEPS = 25  # steps between two searches for the end
FADE_OUT_SECONDS = 0.01


@dataclass(frozen=True)
class Request:
    """A request for clips, in samples and classes of one model; ``Generator.prepare`` builds it from checked options.

    Args:
        n_samples: length of each clip; None for an endless stream.
        count: clips, made side by side.
        seed: with the clip's number and the sample's place it decides every draw.
        numbers: of the clips; 0, 1, 2, ... by default.
        truncation: temperature, top-k, top-p.
        prime: (T,) classes that every clip continues; None begins from silence, as the clips of a corpus do.
        conditions: of a conditioned model: each clip's.
    """

    n_samples: int | None
    count: int = 1
    seed: int = 0
    truncation: Truncation = field(default_factory=Truncation)
    prime: npt.NDArray[np.integer] | None = None
    conditions: Sequence[ClipCondition] | None = None
    numbers: Sequence[int] | None = None


class Sampler:
    """Draws new audio from a model.

    Args:
        engine: runs the model.
        quantizer: the model's companding.
    """

    def __init__(self, engine: Engine, quantizer: Quantizer) -> None:
        self.engine = engine
        self.quantizer = quantizer

    def stream_classes(self, request: Request, chunk: int = CHUNK_SAMPLES) -> Iterator[ClassArray]:
        """Generate in chunks; how long they are changes nothing in the audio.

        Args:
            request: what to generate.
            chunk: samples between two yields.

        Yields:
            (count, n) classes, n <= chunk.

        Raises:
            ModelError: the model's outputs are not finite.
        """
        self.engine.start(np.repeat(self._past(request)[None], request.count, axis=0), request.conditions)
        clips = range(request.count) if request.numbers is None else request.numbers
        made = 0
        while request.n_samples is None or made < request.n_samples:
            stop = made + chunk if request.n_samples is None else min(made + chunk, request.n_samples)
            if isinstance(self.engine, SeededEngine):
                yield self.engine.generate_seeded(request.seed, clips, made, stop - made, request.truncation)
            else:
                numbers = np.stack([uniforms(request.seed, clip, made, stop) for clip in clips])
                yield self.engine.generate(numbers, request.truncation)
            made = stop

    def stream(self, request: Request, chunk: int = CHUNK_SAMPLES) -> Iterator[Floats]:
        """Like ``stream_classes``, as waveforms: (count, n) float32 in [-1, 1]."""
        for classes in self.stream_classes(request, chunk):
            yield self.quantizer.decode(classes)

    def _past(self, request: Request) -> ClassArray:
        """Return the past of each clip's first sample: silence, then the prime."""
        padding = self.engine.padding(self.quantizer.silence)
        silence = np.full(self.engine.receptive_field, padding, dtype=np.int64)
        return silence if request.prime is None else np.concatenate([silence, request.prime.astype(np.int64)])


def uniforms(seed: int, clip: int, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Return the uniform numbers that draw samples start .. stop - 1 of one clip; calls may come in any order.

    Philox4x64-10 (Salmon et al., 2011) with the key (seed, clip): number t is word t mod 4 of the block with the
    counter t div 4, its upper 53 bits scaled to [0, 1).

    Args:
        seed: 0 or more, below 2^64.
        clip: which of the clips made together, from 0.
        start: the first sample, counted from the first generated one.
        stop: one past the last sample.

    Returns:
        (stop - start,) float64 in [0, 1).
    """
    first_block = start // WORDS_PER_BLOCK
    # NumPy's Philox counts up before its first block, so block n stands behind the counter n - 1 (mod 2^256).
    counter = (first_block - 1) % (1 << 256)
    words = [(counter >> shift) & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192)]
    generator = np.random.Philox(key=np.array([seed, clip], dtype=np.uint64), counter=np.array(words, dtype=np.uint64))
    skipped = start - first_block * WORDS_PER_BLOCK
    raw = generator.random_raw(skipped + stop - start)[skipped:]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


# --- options -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingOptions:
    """The options of sampling, besides the length of the clips.

    Args:
        count: clips, generated side by side.
        temperature: logits are divided by it: above 1 wilder, below 1 tamer, 0 always the likeliest class; the model's
            own by default, 0.99 or 1.
        top_k: draw among the k likeliest classes only; softmax outputs only.
        top_p: draw among the likeliest classes that together reach this probability; softmax outputs only.
        seed: the same seed gives the same audio.
        prime: (T,) waveform at the model's rate, as ``TrainedModel.load_prime`` gives it, that every clip continues; of
            a longer one the last ``PRIME_SECONDS``.
        labels: of the clips in turn, each a name or weights of several, or one of all clips; the model's own in turn by
            default.
        mel: frames for a model that is conditioned on them: from ``TrainedModel.mel_spectrogram`` or ``load_mel``, or
            (F, n_mels) of your own.
        features: (F, D) for a model that is conditioned on feature files, or from ``TrainedModel.load_features``.
        engine: auto, numba, torch, triton or reference.
        precision: of the weights: auto, float32, bfloat16 or int8.
        threads: CPU threads, clips are distributed over them; all cores by default.

    Raises:
        ParameterError: a value is out of its range. Names of labels, engines and precisions are checked by the model.
    """

    count: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    prime: npt.ArrayLike | None = None
    labels: Label | Sequence[Label] = ()
    mel: npt.ArrayLike | Frames | None = None
    features: npt.ArrayLike | Frames | None = None
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        _ = self.truncation
        if self.count < 1:
            raise ParameterError("count", f"expected a whole number, 1 or more, found {self.count}")
        if not 0 <= self.seed < 1 << 64:
            raise ParameterError("seed", f"expected a whole number from 0 to 2^64 - 1, found {self.seed}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            found = f"expected a whole number, 1 or more, up to {MAX_THREADS}, found {self.threads}"
            raise ParameterError("threads", found)
        if len(self.label_list) > self.count:
            found = f"expected at most one for each clip, found {len(self.label_list)} for {self.count}"
            raise ParameterError("labels", found)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> SamplingOptions:
        """Build options from a call's keyword arguments.

        Raises:
            UsageError: there is no such option; the nearest one is named.
            ParameterError: a value is out of its range.
        """
        known = [each.name for each in fields(cls)]
        for name in keywords:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                suggestion = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
                raise UsageError(f"unknown keyword '{name}'; {suggestion}")
        return cls(**keywords)

    @cached_property
    def truncation(self) -> Truncation:
        """The changes to each distribution before a draw."""
        return Truncation(1.0 if self.temperature is None else self.temperature, self.top_k, self.top_p)

    @property
    def label_list(self) -> Sequence[Label]:
        """The labels as a list."""
        return [self.labels] if isinstance(self.labels, str | Mapping) else self.labels


def samples_in(seconds: float, sample_rate_hz: int) -> int:
    """Return a clip's length in samples.

    Raises:
        ParameterError: the length is not a number above 0, too large, or less than a sample.
    """
    if not seconds > 0:
        raise ParameterError("seconds", f"expected a number above 0, or inf, found {seconds:g}")
    if seconds > MAX_SECONDS:
        raise ParameterError("seconds", f"expected at most {MAX_SECONDS:,}, or inf, found {seconds:g}")
    n_samples = round(seconds * sample_rate_hz)
    if n_samples < 1:
        raise ParameterError("seconds", f"shorter than one sample at {sample_rate_hz:,} Hz", seconds)
    return n_samples


def as_mono(waveform: npt.ArrayLike) -> Floats:
    """Return a waveform as a (T,) float32 array; integers of 8, 16 or 32 bits are scaled as samples of a file.

    Raises:
        UsageError: it is not one clip of finite numbers, one or more, or they are far outside [-1, 1].
    """
    array = np.asarray(waveform)
    if array.dtype.kind not in "iufb":
        raise UsageError("expected a waveform of numbers, (T,), found other values; load_clip(PATH) reads files")
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise UsageError(f"expected a waveform of finite numbers, (T,) with T >= 1, found the shape {array.shape}")
    if array.dtype in (np.int8, np.int16, np.int32):
        return (array / 2.0 ** (8 * array.itemsize - 1)).astype(np.float32)
    if array.dtype == np.uint8:
        return ((array - 128.0) / 128).astype(np.float32)
    if (peak := float(np.abs(array).max())) > MAX_AMPLITUDE:
        raise UsageError(f"expected samples within [-1, 1], found {peak:,.6g}; divide integers by their full scale")
    return array.astype(np.float32)


# --- for a model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generator:
    """Turns sampling options into a sampler and its request.

    Args:
        source: the model, for engines.
        quantizer: its companding.
        conditioner: what it is conditioned on.
        sample_rate_hz: its rate.
        precision_costs: what lower precisions of its weights cost in sampling, in bits/sample; empty if not measured.
        temperature: where none is asked for.
    """

    source: EngineSource
    quantizer: Quantizer
    conditioner: Conditioner
    sample_rate_hz: int
    precision_costs: Mapping[str, float]
    temperature: float

    def prepare(
        self, seconds: float | None, options: SamplingOptions, candidates: int = 1, notice: Notice | None = None
    ) -> tuple[Sampler, Request]:
        """Check options against the model, and build the sampler of all candidates and the request for the clips.

        Args:
            seconds: length of each clip; None for the length of the frames, or without end where there are none.
            options: how to generate.
            candidates: to generate for each clip.
            notice: called with the label and the engine that were chosen, and why.

        Raises:
            ParameterError: an option is not for this model.
        """
        n_samples = None if seconds is None else samples_in(seconds, self.sample_rate_hz)
        if options.prime is not None and (source := self.conditioner.frames) is not None:
            problem = f"not with a model conditioned on {source.kind}, which begins where they begin; leave it out"
            raise ParameterError("prime", problem)
        conditions = self._conditions(options, notice)
        if conditions and (source := self.conditioner.frames) and (frames := conditions[0].frames) is not None:
            longest = len(frames) * conditions[0].hop_length
            n_samples = frames.n_samples if n_samples is None else n_samples
            if n_samples > longest:
                most = f"{longest / self.sample_rate_hz:g} s, as the {source.noun} go"
                raise ParameterError("seconds", f"expected at most {most}, found {seconds:g}")
        prime = None
        if options.prime is not None:
            past = np.atleast_1d(np.asarray(options.prime))[-round(PRIME_SECONDS * self.sample_rate_hz) :]
            prime = self.quantizer.encode(as_mono(past))
        truncation = options.truncation
        if options.temperature is None:
            truncation = replace(truncation, temperature=self.temperature)
        self.source.distribution.check(truncation)
        request = Request(n_samples, options.count, options.seed, truncation, prime, conditions)
        return Sampler(self._engine(options, options.count * candidates, notice), self.quantizer), request

    def label_weights(self, label: str | Mapping[str, float]) -> Mapping[str, float]:
        """Return a user's label as weights by name."""
        return parse_label(label, self.conditioner.labels) if isinstance(label, str) else label

    def clip_labels(self, options: SamplingOptions) -> list[str | None]:
        """Return the labels of the clips in turn; None for a mix, and in a model without labels."""
        return [next(iter(each)) if len(each) == 1 else None for each in self._label_weights(options)] or [None]

    def _label_weights(self, options: SamplingOptions) -> list[Mapping[str, float]]:
        """Return the labels of the clips in turn, as weights by name; those that the model knows by default."""
        chosen = [self.label_weights(label) for label in options.label_list]
        return chosen or [{label: 1.0} for label in self.conditioner.labels[: options.count]]

    def _conditions(self, options: SamplingOptions, notice: Notice | None) -> list[ClipCondition] | None:
        """Return each clip's condition; None in a model without any."""
        count, known = options.count, self.conditioner.labels
        if known and not options.label_list and notice:
            notice(f"label: {list_labels(known[:count])} (the default; the model knows {list_labels(known)})")
        chosen: list[Mapping[str, float]] | list[None] = self._label_weights(options) or [None]
        conditions = [self.conditioner.to_generate(label, options.mel, options.features) for label in chosen]
        some = [condition for condition in conditions if condition is not None]
        return [some[i % len(some)] for i in range(count)] if some else None

    def _engine(self, options: SamplingOptions, n_streams: int, notice: Notice | None) -> Engine:
        """Build the engine; ``auto`` is the fused one on a CPU, in the lowest precision that costs little."""
        source, asked = self.source, options.precision
        if source.device_type == "auto":
            # what only the fused engine has asks for the CPU
            for_cpu = options.engine == "numba" or asked not in ("auto", "float32") or options.threads is not None
            may_be_fused, n_at_once = options.engine in ("auto", "numba"), 1 if for_cpu else n_streams
            device_type = source.device_for(n_at_once) if may_be_fused else choose_device("auto").type
            source = replace(source, device_type=device_type)
        chosen = choose_engine(options.engine, source, "float32" if asked == "auto" else asked)
        if options.engine == "auto" and source.device_type == "cuda":
            chosen = faster_on_gpu(source, self._lowest_precision("triton"), n_streams)
        is_fused = chosen == "numba"
        if not is_fused and (options.threads or 1) > 1:
            remedy = {"engine": "numba"} if source.model.kind == "wavenet" else {"threads": 1}
            raise ParameterError("threads", f"the {chosen} engine runs on one thread", give=remedy)
        # `choose_engine` has checked the name
        precision = self._lowest_precision(chosen) if asked == "auto" else cast("Precision", asked)
        threads = min(options.threads or available_cores(), n_streams) if is_fused else 1
        if notice:
            cost = self.precision_costs.get(precision)
            reason = f" (on held-out audio {cost:+.4f} bits/sample)" if cost and abs(cost) >= 0.00005 else ""
            shared = f", {threads} threads" if threads > 1 else ""
            notice(f"engine: {chosen}, {precision} weights{reason}{shared}")
        if is_fused:
            from wavegen.sampling.engines.numba_fused import compile_kernel

            compile_kernel(precision, notice or print)
        return build_engine(chosen, source, precision, threads)

    def _lowest_precision(self, engine: str) -> Precision:
        """Return ``AUTO_PRECISION`` if its measured cost is small enough, else float32."""
        cost = self.precision_costs.get(AUTO_PRECISION, math.inf)
        return AUTO_PRECISION if engine in ("numba", "triton") and cost <= MAX_PRECISION_COST else "float32"


# --- one-shots -----------------------------------------------------------------------------------------------------


def find_end(levels_db: npt.NDArray[np.float64]) -> int | None:
    """Return the step in which a sound is over, or None if it continues.

    Args:
        levels_db: (n,) of each ``STEP_SECONDS`` so far.
    """
    if len(levels_db) < LEVEL_STEPS:
        return None
    power = np.convolve(10 ** (levels_db / 10), np.ones(LEVEL_STEPS) / LEVEL_STEPS, mode="valid")
    loudest = np.maximum.accumulate(decibels(power))
    if loudest[-1] < SILENT_DB:
        return None  # nothing has begun yet
    begin, below = int(np.argmax(loudest >= SILENT_DB)), loudest - decibels(power)
    for i in range(begin + 1, len(below)):
        if (below[i - FADED_STEPS + 1 : i + 1] > FADED_DB).sum() == FADED_STEPS:
            return i - FADED_STEPS + LEVEL_STEPS
        quietest = i - 1 - int(levels_db[max(0, i - RISE_STEPS) : i][::-1].argmin())
        has_fallen = i - LEVEL_STEPS >= begin and below[i - LEVEL_STEPS] > FALLEN_DB
        if has_fallen and levels_db[i] - levels_db[quietest] > RISE_DB:
            return quietest
    return None


def cut_one_shots(blocks: Iterable[Floats], rate_hz: int) -> list[Floats]:
    """Take blocks of clips until the sound of each is over, and cut each clip there, with a short fade.

    Args:
        blocks: (count, n) each; no more are taken than needed.
        rate_hz: of the clips.

    Returns:
        (T_i,) of each clip; one that does not end is as long as the blocks were.
    """
    size, clips = max(1, round(STEP_SECONDS * rate_hz)), np.zeros((0, 0), np.float32)
    ends: list[int | None] = []
    looked_at = 0
    for block in blocks:
        clips = block if not ends else np.concatenate([clips, block], axis=1)
        ends = ends or [None] * len(block)
        if clips.shape[1] >= looked_at + LOOK_STEPS * size:
            looked_at, ends = clips.shape[1], _find_ends(clips, size, ends)
            if None not in ends:
                break
    ends = _find_ends(clips, size, ends)
    return [
        clip if end is None else _fade_out(clip[: (end + 1) * size].copy(), rate_hz)
        for clip, end in zip(clips, ends, strict=True)
    ]


def _find_ends(clips: Floats, size: int, ends: list[int | None]) -> list[int | None]:
    """Look for the ends that are not known yet, in (count, T) clips."""
    n_steps = clips.shape[1] // size
    levels = decibels(clips[:, : n_steps * size].reshape(len(clips), n_steps, size).var(axis=-1, dtype=np.float64))
    return [find_end(own) if end is None else end for own, end in zip(levels, ends, strict=True)]


def _fade_out(clip: Floats, rate_hz: int) -> Floats:
    n = min(len(clip), round(FADE_OUT_SECONDS * rate_hz))
    clip[len(clip) - n :] *= np.linspace(1, 0, n, dtype=np.float32)
    return clip
