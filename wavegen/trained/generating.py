"""What a trained model of sound makes: new audio."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import RecordingProfile
from wavegen.audio.mel import Frames, clip_frames
from wavegen.audio.quantize import Floats
from wavegen.data.conditioning import ClipCondition, list_labels
from wavegen.device import available_cores
from wavegen.errors import UsageError
from wavegen.model.truncation import Truncation
from wavegen.sampling.engines import PRECISIONS, build_engine, choose_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.sampling.verdict import Fault, Verdict
from wavegen.trained.model import Label, Model, mono

if TYPE_CHECKING:
    from wavegen.sampling.engines.engine import Engine
    from wavegen.sampling.engines.packing import Precision

LARGEST_PRECISION_COST = 0.01  # bits/sample
MOST_THREADS = 1024
LARGEST_SECONDS = 10_000_000  # a third of a year


class SamplingOptions(TypedDict, total=False):
    """What ``generate`` and ``stream`` take besides a length."""

    count: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    prime: npt.ArrayLike | None
    labels: Label | Sequence[Label]
    mel: npt.ArrayLike | Frames | None
    engine: str
    precision: str
    threads: int | None


class Generating(Model):
    """The part of a trained model that makes sound; what does so raises ``UsageError`` on a model of series."""

    def stream(
        self,
        seconds: float | None = None,
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prime: npt.ArrayLike | None = None,
        labels: Label | Sequence[Label] = (),
        mel: npt.ArrayLike | Frames | None = None,
        engine: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Iterator[Floats]:
        """Generate audio chunk by chunk.

        Args:
            seconds: length; None goes on without end, or as far as the mel frames go: those of a clip as long as it is.
            count: clips, made side by side.
            temperature: above 1 wilder, below 1 tamer; 0 takes the likeliest class always.
            top_k: draw among the k likeliest classes only; a mixture ranks none.
            top_p: draw among the likeliest classes that together reach this probability only; likewise.
            seed: the same seed gives the same audio.
            prime: (T,) waveform at the model's rate, such as ``read`` gives, that every clip continues.
            labels: of the clips in turn, each a name or weights of several, or one of all; the model's own in turn by
                default.
            mel: frames for a model that makes sound of them: from ``mel_of``, ``read_mel``, or (F, n_mels) of your own.
            engine: auto, numba, torch or reference.
            precision: of the weights: auto, float32, bfloat16 or int8.
            threads: that share the clips; all cores by default.
            notice: is told which engine was chosen, and why.

        Yields:
            (count, n) float32 in [-1, 1].

        Raises:
            UsageError: an argument is out of its range.
            ModelError: the model's outputs are not finite.
        """
        sampler, request = self._prepared(
            seconds,
            count=count,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            prime=prime,
            labels=labels,
            mel=mel,
            engine=engine,
            precision=precision,
            threads=threads,
            notice=notice,
        )
        return sampler.stream(request)

    def _prepared(
        self,
        seconds: float | None,
        candidates: int = 1,
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prime: npt.ArrayLike | None = None,
        labels: Label | Sequence[Label] = (),
        mel: npt.ArrayLike | Frames | None = None,
        engine: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> tuple[Sampler, Request]:
        """What makes the clips, so many candidates for each, and what it is asked for, checked."""
        self.check_kind(False, "generate")
        n_samples = None if seconds is None else self.n_samples(seconds)
        if prime is not None and self.conditioner.mel is not None:
            raise UsageError("--prime: a vocoder's sound begins where its spectrogram begins; leave it out")
        chosen = [labels] if isinstance(labels, str | Mapping) else labels
        conditions = self._conditions(chosen, mel, count, notice)
        if conditions and (frames := conditions[0].frames) is not None:
            longest = len(frames) * conditions[0].hop_length
            n_samples = frames.n_samples if n_samples is None else n_samples
            if n_samples > longest:
                raise UsageError(
                    f"--seconds: expected at most {longest / self.sample_rate_hz:g} s, as the mel frames go, "
                    f"found {seconds:g}"
                )
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"--threads: expected a whole number, 1 or more, up to {MOST_THREADS}, found {threads}")
        past = None if prime is None else self.quantizer.encode(mono(prime))
        truncation = Truncation(temperature, top_k, top_p)
        self.distribution.check(truncation)
        request = Request(n_samples, count, seed, truncation, past, conditions)
        return Sampler(self._engine(engine, precision, threads, count * candidates, notice), self.quantizer), request

    def generate(self, seconds: float | None = None, **options: Unpack[SamplingOptions]) -> Floats:
        """Generate audio as one array.

        Args:
            seconds: length of each clip; may be left out where mel frames say it.
            **options: as ``stream``.

        Returns:
            (count, T) float32 in [-1, 1].

        Raises:
            UsageError: an argument is out of its range.
            ModelError: the model's outputs are not finite.
        """
        if seconds is None and options.get("mel") is None:
            raise UsageError("--seconds: expected a length, found none")
        return np.concatenate(list(self.stream(seconds, **options)), axis=1)

    def one_shots(
        self, seconds: float, *, notice: Callable[[str], None] | None = None, **options: Unpack[SamplingOptions]
    ) -> list[Floats]:
        """Generate clips that begin after silence and end where their sound has faded, such as a hit or a note each.

        Args:
            seconds: length at most.
            notice: as ``stream``.
            **options: as ``stream``.

        Returns:
            (T_i,) float32 in [-1, 1], one for each of ``count``.

        Raises:
            UsageError: an argument is out of its range, or there is a prime or a mel spectrogram.
            ModelError: the model's outputs are not finite.
        """
        from wavegen.sampling.one_shot import cut_one_shots

        if options.get("prime") is not None or options.get("mel") is not None:
            raise UsageError("--one-shot: begins after silence; leave out --prime, --mel and --mel-from")
        return cut_one_shots(self.stream(seconds, notice=notice, **options), self.sample_rate_hz)

    def faults(self, waveform: npt.ArrayLike) -> list[Fault]:
        """Return what is wrong with a generated clip, as ``generate`` warns of it.

        Args:
            waveform: (T,) at the model's rate.
        """
        self.check_kind(False, "faults")
        verdict = self.verdict()
        verdict.update(mono(waveform)[None])
        return verdict.faults()

    @cached_property
    def recordings(self) -> RecordingProfile | None:
        """The profile of the training's recordings; None in checkpoints without one."""
        stored = self.checkpoint.metrics.get("recordings")
        return None if stored is None else RecordingProfile.from_dict(stored)

    def verdict(self, count: int = 1) -> Verdict:
        """Return a judge of clips that this model makes."""
        return Verdict(self.sample_rate_hz, count, self.recordings)

    def n_samples(self, seconds: float) -> int:
        """A length in samples.

        Raises:
            UsageError: it is not a number above 0, too large, or less than a sample.
        """
        if not seconds > 0:
            raise UsageError(f"--seconds: expected a number above 0, or inf, found {seconds:g}")
        if seconds > LARGEST_SECONDS:
            raise UsageError(f"--seconds: expected at most {LARGEST_SECONDS:,}, or inf, found {seconds:g}")
        n_samples = round(seconds * self.sample_rate_hz)
        if n_samples < 1:
            raise UsageError(f"--seconds {seconds:g}: shorter than one sample at {self.sample_rate_hz:,} Hz")
        return n_samples

    def mel_of(self, waveform: npt.ArrayLike) -> Frames:
        """The mel frames of a recording, as ``stream`` takes them to make it anew.

        Args:
            waveform: (T,) at the model's rate, such as ``read`` gives.

        Raises:
            UsageError: the model is not conditioned on mel spectrograms.
        """
        if self.conditioner.mel is None:
            raise UsageError("--mel-from: this model is not conditioned on mel spectrograms; leave it out")
        return clip_frames(self.conditioner.mel, self.quantizer, self.quantizer.encode(mono(waveform)))

    def read_mel(self, path: str | Path) -> Frames:
        """A ``.npy`` file of mel frames, (F, n_mels), in the convention of ``wavegen.audio.mel``.

        Raises:
            UsageError: the file is not there, its frames do not follow the model's convention, or it takes none.
        """
        if self.conditioner.mel is None:
            raise UsageError("--mel: this model is not conditioned on mel spectrograms; leave it out")
        return self.conditioner.mel.read(Path(path))

    def doubt(self) -> str | None:
        """A sentence on why nothing good can be expected of this model, if so."""
        if self.is_series:
            return None  # evaluate says how good its forecasts are
        bits = self.held_out_bits
        baselines = (self.checkpoint.metrics.get("validation") or {}).get("baselines", {})
        # of 16-bit samples no pairs can be counted
        name, what = ("order-2 Markov", "pairs of samples") if "order-2 Markov" in baselines else ("unigram", "samples")
        trivial = baselines.get(name)
        heard = f"it has made {self.checkpoint.step:,} steps"
        if bits is None or trivial is None:
            return f"this model was never validated, expect noise: {heard}" if self.checkpoint.step < 1000 else None
        if bits < trivial:
            return None
        return (
            f"this model is hardly trained, expect noise: {heard} and has {bits:.2f} bits/sample on held-out audio, "
            f"where counting {what} ({name}) has {trivial:.2f}; train longer"
        )

    @property
    def held_out_bits(self) -> float | None:
        """Bits/sample on held-out audio at the last validation; None if there was none."""
        validation = self.checkpoint.metrics.get("validation") or {}
        bits: float | None = validation.get("held_out_loss", validation.get("validation_loss"))
        return bits

    @property
    def precision_costs(self) -> dict[str, float]:
        """What lower precisions of these weights cost in sampling, in bits/sample; empty if it was not measured."""
        costs: dict[str, float] = self.checkpoint.metrics.get("precision_costs") or {}
        return costs

    def _conditions(
        self,
        labels: Sequence[Label],
        mel: npt.ArrayLike | Frames | None,
        count: int,
        notice: Callable[[str], None] | None,
    ) -> list[ClipCondition] | None:
        """Each clip's condition; None in a model without any."""
        chosen = [self._weights(label) for label in labels]
        if len(chosen) > max(1, count):
            raise UsageError(f"--label: expected at most one for each clip, found {len(chosen)} for {count}")
        if not chosen and self.labels:
            chosen = [{label: 1.0} for label in self.labels[: max(1, count)]]
            if notice:
                names = list_labels([*chosen[0]] if count == 1 else self.labels[:count])
                notice(f"label: {names}; --label chooses another")
        each: Sequence[Mapping[str, float] | None] = chosen or [None]
        conditions = [self.conditioner.to_generate(label, mel) for label in each]
        known = [condition for condition in conditions if condition is not None]
        return [known[i % len(known)] for i in range(count)] if known else None

    def _engine(
        self, name: str, precision: str, threads: int | None, count: int, notice: Callable[[str], None] | None
    ) -> Engine:
        """The engine asked for; ``auto`` takes the fused one on a CPU, in the lowest precision that costs little."""
        # On a machine with CUDA the fused engine still serves `auto`: for that no GPU has been measured.
        device_type = "cpu" if self.device_name == "auto" else self.device.type
        exact = "float32" if precision == "auto" else precision
        chosen = choose_engine(name, device_type, exact, self.config.model.kind)
        if chosen != "numba" and (threads or 1) > 1:
            kind = self.config.model.kind
            remedy = "give --engine numba" if kind == "wavenet" else f"leave it out for a {kind}"
            raise UsageError(f"--threads: the {chosen} engine runs on one thread; {remedy}")
        used = self._lowest_precision(chosen) if precision == "auto" else precision
        cost = self.precision_costs.get(used)
        reason = "" if cost is None else f" (on held-out audio {round(cost, 4) + 0.0:+.4f} bits/sample)"
        n_threads = min(threads or available_cores(), count) if chosen == "numba" else 1
        if notice:
            shared = f", {n_threads} threads" if n_threads > 1 else ""
            notice(f"engine: {chosen}, {used} weights{reason}{shared}")
        if chosen != "numba":
            return build_engine(chosen, self.network)
        from wavegen.sampling.engines.numba_fused import NumbaFusedEngine, compile_kernel

        weights: Precision = next(known for known in PRECISIONS if known == used)
        compile_kernel(weights, notice or print)
        shape = self.config.model
        return NumbaFusedEngine(
            self.checkpoint.average, shape.dilations, self.distribution, weights, n_threads, shape.activation
        )

    def _lowest_precision(self, engine: str) -> str:
        """The precision with the fewest bits whose measured cost is small enough."""
        lower = reversed(PRECISIONS) if engine == "numba" else ()
        return next((p for p in lower if self.precision_costs.get(p, math.inf) <= LARGEST_PRECISION_COST), "float32")
