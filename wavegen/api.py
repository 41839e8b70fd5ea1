"""The Python API: load or train a model, generate and score audio with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import ClipFrames, Features, Frames, FrameSource, MelSpectrogram
from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import Decoded, Floats, build_quantizer
from wavegen.audio.waveform import build_preparation, load_waveform
from wavegen.config import DEFAULT_PRESET, Config, load_config, load_for_long_events
from wavegen.data.conditioning import build_conditioner
from wavegen.data.corpus import Corpus, Progress, TrainingClips
from wavegen.data.sources import compact_sources
from wavegen.device import choose_device
from wavegen.errors import ParameterError, UsageError
from wavegen.model.building import build_distribution, build_model, check_weights, load_weights, parameter_shapes
from wavegen.runs.checkpoint import Checkpoint, fold_checkpoint, load_checkpoint
from wavegen.runs.run_folder import RunFolder, find_checkpoint, run_of
from wavegen.sampling.candidates import BestCandidate, CandidateSearch
from wavegen.sampling.engines import EngineSource
from wavegen.sampling.sampler import (
    PRIME_SECONDS,
    Generator,
    Label,
    Notice,
    Request,
    Sampler,
    SamplingOptions,
    as_mono,
    cut_one_shots,
)
from wavegen.sampling.verdict import Fault, Verdict
from wavegen.text import expand_home, pluralize

if TYPE_CHECKING:
    import torch

    from wavegen.evaluation.clips import ClipLoader
    from wavegen.model.network import Network
    from wavegen.series.forecast import Forecaster
    from wavegen.training.progress import Observer

__all__ = ["Label", "SamplingOptions", "TrainedModel", "load", "train"]

FAR_FROM_LINEAR = 1.0  # bits/sample above linear prediction; a model beyond makes noise
FEW_STEPS = 1000  # a model that was never validated is taken for undertrained below
CPU_DEVICES = ("auto", "cpu")  # need no torch unless an engine does


class TrainedModel:
    """A network with a checkpoint's averaged weights: generates and scores sound, forecasts series.

    Methods for audio models raise ``UsageError`` on a model of series, and the reverse.

    Attributes:
        checkpoint: what was loaded, with weight normalization folded.
        config: of the training, likewise.
        labels: that the model knows; none in a model without.
        sample_rate_hz: of all audio that goes in and comes out.

    Args:
        checkpoint: of a training.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ModelError: the weights do not fit the configuration, or are not finite.
        ParameterError: there is no such device.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        check_weights(checkpoint.average, parameter_shapes(checkpoint.config))
        checkpoint = fold_checkpoint(checkpoint)  # every use has plain weights
        self.checkpoint, self.config, self.device_name = checkpoint, checkpoint.config, device
        self.quantizer = build_quantizer(self.config)
        self.distribution = build_distribution(self.config)
        self.conditioner = build_conditioner(self.config)
        self.preparation = build_preparation(self.config)
        self.sample_rate_hz = self.config.audio.sample_rate_hz
        self.labels = self.conditioner.labels
        manifest = None if checkpoint.is_for_use_only else checkpoint.manifest
        self.training_clips = TrainingClips(manifest, self._read_corpus)
        if device not in CPU_DEVICES:
            _ = self.device  # raises at once if there is none

    def __repr__(self) -> str:
        """Return kind, rate, labels and training of the model on a line."""
        kind = "series" if self.config.rate_hz is None else f"{self.sample_rate_hz:,} Hz"
        labels = f", {pluralize(len(self.labels), 'label')}" if self.labels else ""
        bits = "" if self.held_out_bits is None else f", {self.held_out_bits:.3f} bits/sample held out"
        steps = pluralize(self.checkpoint.step, "step")
        return f"<TrainedModel {self.config.model.kind}, {kind}{labels}, {steps}{bits}>"

    # --- generating ------------------------------------------------------------------------------------------------

    def generate(self, seconds: float | None = None, **options: Any) -> Floats:
        """Generate clips as one array.

            clip = model.generate(5, temperature=1.03, seed=1)[0]
            soundfile.write("new.wav", clip, model.sample_rate_hz)

        Args:
            seconds: length of each clip; may be left out where frames decide it.
            **options: as ``SamplingOptions``; a prime may be a file.

        Returns:
            (count, T) float32 in [-1, 1].

        Raises:
            UsageError: an option is unknown, out of its range, or not for this model.
            ModelError: the model's outputs are not finite.
        """
        if seconds is None and options.get("mel") is None and options.get("features") is None:
            raise ParameterError("seconds", "expected a length, found none")
        return np.concatenate(list(self.stream(seconds, **options)), axis=1)

    def stream(self, seconds: float | None = None, *, notice: Notice | None = None, **options: Any) -> Iterator[Floats]:
        """Generate clips block by block.

        Args:
            seconds: length; None for the length of the frames, or without end where there are none.
            notice: called with the label and the engine that were chosen, and why.
            **options: as ``SamplingOptions``.

        Yields:
            (count, n) float32 in [-1, 1].

        Raises:
            UsageError: an option is unknown, out of its range, or not for this model.
            ModelError: the model's outputs are not finite.
        """
        sampler, request = self._prepare(seconds, options, notice=notice)
        return sampler.stream(request)

    def generate_best(
        self,
        seconds: float | None = None,
        best_of: int = 8,
        *,
        progress: Callable[[int], None] | None = None,
        notice: Notice | None = None,
        **options: Any,
    ) -> Iterator[BestCandidate]:
        """Generate several candidates for each clip, drop those with faults, and keep the most typical one.

        It is the one whose bits/sample are nearest to those of held-out recordings, or, where these are not known or of
        other labels and spectrograms, to the median of its candidates (see ``rank_candidates``). The first candidate is
        the clip that ``generate`` returns for the same seed.

        Args:
            seconds: length; None for the length of the frames.
            best_of: candidates for each clip, 1 to 1,024.
            progress: called with the samples generated so far, scored ones only.
            notice: called with the label and the engine that were chosen, and why.
            **options: as ``SamplingOptions``.

        Yields:
            The best candidate of each clip.

        Raises:
            UsageError: an option is unknown, out of its range, or not for this model, or the candidates of a clip are
                too much to hold in memory.
            ModelError: the model's outputs are not finite.
        """
        sampler, request = self._prepare(seconds, options, max(1, best_of), notice)
        labels = self.generator.clip_labels(SamplingOptions.from_keywords(options))

        def verdict(clips: Sequence[int]) -> Verdict:
            return self._verdict(len(clips), [labels[clip % len(labels)] for clip in clips])

        typical = None if self.conditioner.is_needed else self.held_out_bits
        search = CandidateSearch(sampler, request, self._score_classes, verdict, typical, self.sample_rate_hz)
        return search.best(best_of, progress)

    def generate_one_shots(self, seconds: float, *, notice: Notice | None = None, **options: Any) -> list[Floats]:
        """Generate clips that begin after silence and end where their sound has faded, such as a hit or a note each.

        Args:
            seconds: maximum length.
            notice: called with the label and the engine that were chosen, and why.
            **options: as ``SamplingOptions``, without a prime and frames.

        Returns:
            (T_i,) float32 in [-1, 1], one for each of ``count``.

        Raises:
            UsageError: an option is unknown, out of its range, or not for this model.
            ModelError: the model's outputs are not finite.
        """
        for name in ("prime", "mel", "features"):
            if options.get(name) is not None:
                raise ParameterError(name, "not with one-shots, which begin after silence; leave it out")
        return cut_one_shots(self.stream(seconds, notice=notice, **options), self.sample_rate_hz)

    def _prepare(
        self, seconds: float | None, options: Mapping[str, Any], candidates: int = 1, notice: Notice | None = None
    ) -> tuple[Sampler, Request]:
        self.check_sound("generate")
        if isinstance(prime := options.get("prime"), str | Path):
            options = {**options, "prime": self.load_prime(prime, notice)}
        return self.generator.prepare(seconds, SamplingOptions.from_keywords(options), candidates, notice)

    @cached_property
    def generator(self) -> Generator:
        """The generator, which prepares samplers."""
        device_type = self.device_name if self.device_name in CPU_DEVICES else self.device.type

        def network(kind: str) -> Network:
            return self.network if self.device.type == kind else self.network.copy().to(kind)

        has_frames = self.conditioner.frames is not None
        source = EngineSource(
            self.config.model, device_type, self.distribution, lambda: self.checkpoint.average, network, has_frames
        )
        rate, temperature = self.sample_rate_hz, self.config.temperature
        return Generator(source, self.quantizer, self.conditioner, rate, self.precision_costs, temperature)

    # --- judging ---------------------------------------------------------------------------------------------------

    def score(
        self, waveform: npt.ArrayLike, label: Label | None = None, features: npt.ArrayLike | Frames | None = None
    ) -> float:
        """Score a clip from its start, in bits/sample.

        Args:
            waveform: (T,) at the model's rate, as ``load_clip`` returns it; values outside [-1, 1] are clipped.
            label: of the clip, for a model with labels: a name or weights of several. Mel frames are computed where the
                model needs them.
            features: (F, D) of the clip, for a model that is conditioned on feature files.

        Raises:
            UsageError: it is not one clip of one sample or more, or its label or features are not for this model.
        """
        self.check_sound("score")
        classes = self.quantizer.encode(as_mono(waveform))
        weights = {} if label is None else self.generator.label_weights(label)
        frames = None
        if features is not None:
            self.conditioner.check_takes(Features)
            assert isinstance(self.conditioner.frames, Features)
            frames = self.conditioner.frames.of_clip(features, len(classes), "features")
        condition = self.conditioner.of_clip(classes, weights, frames)
        return self._score_classes([classes], None if condition is None else [condition])[0] / len(classes)

    def _score_classes(
        self,
        clips: Sequence[npt.NDArray[np.integer]],
        conditions: Sequence[Any] | None,
        prime: npt.NDArray[np.integer] | None = None,
    ) -> list[float]:
        """Return the bits of each clip."""
        from wavegen.evaluation.likelihood import model_bits

        return model_bits(self.network, clips, self.quantizer.silence, None, conditions, prime)

    def faults(self, waveform: npt.ArrayLike, label: str | None = None) -> list[Fault]:
        """Return the faults of a generated clip, as ``wavegen generate`` reports them.

        Args:
            waveform: (T,) at the model's rate.
            label: compare it with the recordings of this label.
        """
        self.check_sound("faults")
        verdict = self._verdict(1, [label])
        verdict.update(as_mono(waveform)[None])
        return verdict.faults()

    def verdict(self, count: int = 1, labels: Label | Sequence[Label] = ()) -> Verdict:
        """Return a verdict for clips that this model generates.

        Args:
            count: of the clips.
            labels: of the clips, as ``SamplingOptions.labels``.
        """
        return self._verdict(count, self.generator.clip_labels(SamplingOptions(count=count, labels=labels)))

    def _verdict(self, count: int, labels: Sequence[str | None]) -> Verdict:
        stored = self.checkpoint.metrics.get("recordings")
        recordings = None if stored is None else RecordingProfile.from_dict(stored)
        return Verdict(self.sample_rate_hz, count, recordings, labels)

    def undertrained_warning(self) -> str | None:
        """Return a warning if this model needs more training, else None."""
        if self.forecaster is not None:
            return None  # evaluate compares its forecasts
        bits, steps = self.held_out_bits, pluralize(self.checkpoint.step, "step")
        baselines = (self.checkpoint.metrics.get("validation") or {}).get("baselines", {})
        # Of 16-bit samples no pairs are counted; where many pairs are rare, linear prediction tells more.
        limits = [(baselines[name], name) for name in ("order-2 Markov", "unigram") if name in baselines][:1]
        if bits is None or not limits:
            few = self.checkpoint.step < FEW_STEPS
            return f"this model was never validated ({steps}): expect noise" if few else None
        if "linear prediction" in baselines:
            limits.append((baselines["linear prediction"] + FAR_FROM_LINEAR, "linear prediction"))
        limit, name = min(limits)
        if bits < limit:
            return None
        figures = f"{steps}, {bits:.2f} bits/sample held out, {name} has {baselines[name]:.2f}"
        return f"this model is undertrained ({figures}): expect noise; train longer"

    @property
    def held_out_bits(self) -> float | None:
        """Bits/sample on held-out audio at the last validation; None if there was none."""
        validation = self.checkpoint.metrics.get("validation") or {}
        bits: float | None = validation.get("held_out_loss", validation.get("validation_loss"))
        return bits

    @property
    def precision_costs(self) -> dict[str, float]:
        """The cost of each lower precision of the weights in bits/sample; empty if not measured."""
        costs: dict[str, float] = self.checkpoint.metrics.get("precision_costs") or {}
        return costs

    # --- loading ---------------------------------------------------------------------------------------------------

    def load_clip(self, path: str | Path, notice: Notice | None = None) -> Floats:
        """Load a file at the model's rate, prepared as its training data were.

        Args:
            path: of the file.
            notice: called with what is wrong with it.

        Returns:
            (T,) float32, mono.

        Raises:
            AudioError: the file cannot be used.
            UsageError: there is no file.
        """
        return load_waveform(expand_home(path), self.preparation, notice)

    def load_prime(self, path: str | Path, notice: Notice | None = None, last_seconds: float = PRIME_SECONDS) -> Floats:
        """Load a file to continue: prepared as the training data were, but with all of its silence.

        Args:
            path: of the file.
            notice: called with what is wrong with it.
            last_seconds: of the file that are loaded; a clip continues no more than ``PRIME_SECONDS``.

        Returns:
            (T,) float32, mono.

        Raises:
            AudioError, UsageError: as ``load_clip``.
        """
        whole = load_waveform(expand_home(path), replace(self.preparation, trim_db=None), notice)
        return whole[max(0, len(whole) - round(min(last_seconds, 1e9) * self.sample_rate_hz)) :]

    def mel_spectrogram(self, waveform: npt.ArrayLike) -> Frames:
        """Return the mel frames of a recording, from which ``generate`` reconstructs it.

        Args:
            waveform: (T,) at the model's rate, as ``load_clip`` returns it.

        Raises:
            UsageError: the model is not conditioned on mel spectrograms.
        """
        if not isinstance(self.conditioner.frames, MelSpectrogram):
            raise UsageError("this model is not conditioned on mel spectrograms")
        return ClipFrames(self.conditioner.frames, Decoded(self.quantizer.encode(as_mono(waveform)), self.quantizer))

    def load_mel(self, path: str | Path) -> Frames:
        """Load a ``.npy`` file of mel frames, (F, n_mels), in the convention of ``wavegen.audio.frames``.

        Raises:
            UsageError: the file is not there, its frames do not follow the model's convention, or it takes none.
        """
        return self._load_frames(MelSpectrogram, path)

    def load_features(self, path: str | Path) -> Frames:
        """Load a ``.npy`` file of features, (F, D), of the columns and hop that the model was trained with.

        Raises:
            UsageError: the file is not there, its features are not of the model's kind, or it takes none.
        """
        return self._load_frames(Features, path)

    def _load_frames(self, kind: type[FrameSource], path: str | Path) -> Frames:
        self.conditioner.check_takes(kind)
        assert self.conditioner.frames is not None
        return self.conditioner.frames.read(expand_home(path))

    def _read_corpus(self, progress: Progress | None) -> Corpus[Any]:
        from wavegen.training.task import task_type

        return task_type(self.config).read_corpus(self.config, progress)

    # --- parts -----------------------------------------------------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        """The device of the network."""
        return choose_device(self.device_name)

    @cached_property
    def network(self) -> Network:
        """The network in torch, in float32; built when something needs it: the fused engine does not."""
        network = build_model(self.config).requires_grad_(False)
        load_weights(network, self.checkpoint.average)
        return network.to(self.device).eval()

    @cached_property
    def clips(self) -> ClipLoader:
        """The loader of clips to score, from files or the training's folder."""
        from wavegen.evaluation.clips import ClipLoader

        self.check_sound("clips")
        return ClipLoader(self.preparation, self.quantizer, self.conditioner, self.training_clips)

    @cached_property
    def forecaster(self) -> Forecaster | None:
        """The forecaster of a model of series; None for an audio model."""
        if self.config.rate_hz is not None:
            return None
        from wavegen.series.forecast import Forecaster

        return Forecaster(self.config, self.network, self.training_clips)

    def check_sound(self, call: str) -> None:
        """Make sure that this is a model of sound.

        Raises:
            UsageError: it is a model of series; the message begins with ``call``.
        """
        if self.forecaster is not None:
            raise UsageError(f"{call}: expected a model of sound, found a model of series of numbers")

    def forecast(self, series: npt.ArrayLike, steps: int | None = None) -> npt.NDArray[np.float64]:
        """Forecast the next values of series.

        Args:
            series: (T,) one series so far, or (N, T) several, in the data's own units.
            steps: values to forecast; the model's horizon by default. Beyond it, the forecasts are taken as known.

        Returns:
            (steps,), or (N, steps).

        Raises:
            UsageError: the series or the steps are not what is expected, or the model is one of sound.
        """
        if self.forecaster is None:
            raise UsageError("forecast: expected a model of series of numbers, found a model of sound")
        return self.forecaster.forecast(series, steps)


def load(path: str | Path, device: str = "auto") -> TrainedModel:
    """Load a run's best checkpoint, or a checkpoint file.

    Args:
        path: a run folder, a ``.safetensors`` file, or ``voice``, the model that wavegen ships.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        UsageError: there is nothing to load at the path, or no such device.
        CheckpointError: the checkpoint is damaged or of another version.
        ModelError: its weights are not finite.
    """
    return TrainedModel(load_checkpoint(find_checkpoint(expand_home(path))), device)


def train(
    folder: str | Path | Sequence[str | Path] | None = None,
    config: Config | str | Path | None = None,
    *,
    run: str | Path | None = None,
    device: str = "auto",
    init_from: str | Path | None = None,
    observers: Sequence[Observer] = (),
    notice: Notice = print,
) -> TrainedModel:
    """Train a model on a folder of recordings, or of series.

    Args:
        folder: of the recordings, or several folders and files; None for the configuration's, or for synthetic series.
        config: a configuration, a preset's name, or a YAML file; None for the preset ``small``, or ``music`` where
            notes and decays are long.
        run: the run folder; ``runs/`` and the folder's name by default.
        device: auto, cpu, cuda, cuda:N or mps.
        init_from: a run or checkpoint to start from.
        observers: callbacks of the training.
        notice: called with messages for the user.

    Returns:
        The best model of the training.

    Raises:
        ConfigError, UsageError, DataError: an argument is wrong.
        TrainingError: the loss is repeatedly not finite.
        ProcessDied: on several processes: another one died; the state is saved.
        Interrupted: after Ctrl-C; the state is saved.
    """
    from wavegen.training.process_group import process_group
    from wavegen.training.start import start_run

    settings = config if isinstance(config, Config) else load_config(config or DEFAULT_PRESET)
    for_long_events = load_for_long_events() if config is None and init_from is None else None
    if folder is not None:
        given = compact_sources([folder] if isinstance(folder, str | Path) else folder)
        settings = settings.with_values("data", folder=given[0] if len(given) == 1 else given)
    run_folder = run_of(settings.data_sources) if run is None else RunFolder(expand_home(run))
    source = None if init_from is None else expand_home(init_from)
    with process_group(device) as group:
        said = notice if group.is_main else lambda _: None
        trainer = start_run(settings, run_folder, group, said, init_from=source, for_long_events=for_long_events)
        trainer.observers = observers if group.is_main else ()
        trainer.fit()
        best = load_checkpoint(find_checkpoint(run_folder.path)) if group.is_main else None
        best = group.broadcast(best)
    assert best is not None
    return TrainedModel(best, device)
