"""A trained model, ready for use: load a checkpoint, generate and score audio."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from wavegen.audio.conditions import ClipCondition, Conditioner, parse_label, shown
from wavegen.audio.features import Frames, clip_frames
from wavegen.audio.finding import find_audio
from wavegen.audio.quantize import Floats
from wavegen.audio.signal import load_waveform
from wavegen.config import DEFAULT_PRESET, Config, load_config
from wavegen.data.corpus import Clip
from wavegen.data.reading import build_conditioner, build_quantizer, first_samples, read_corpus
from wavegen.device import available_cores, choose_device
from wavegen.errors import AudioError, DataError, UsageError, WavegenError
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, fit_baselines
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.model.outputs import build_distribution
from wavegen.model.shapes import check_weights, parameter_shapes
from wavegen.model.truncation import Truncation
from wavegen.sampling.engines import PRECISIONS, build_engine, choose_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.trained_series import SeriesUse
from wavegen.training.checkpoint import Checkpoint, load_checkpoint
from wavegen.training.observer import Observer
from wavegen.training.run_folder import RunFolder, find_checkpoint

if TYPE_CHECKING:
    import torch

    from wavegen.model.network import Network
    from wavegen.sampling.engines.engine import Engine
    from wavegen.sampling.engines.packing import Precision

LARGEST_PRECISION_COST = 0.01  # bits/sample
MOST_THREADS = 1024
LARGEST_SECONDS = 10_000_000  # a third of a year

Label = str | Mapping[str, float]  # a name, "NAME=WEIGHT,NAME=WEIGHT", or weights by name


class SamplingOptions(TypedDict, total=False):
    """What ``generate`` and ``stream`` take besides a length."""

    count: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    prime: npt.ArrayLike | None
    labels: Sequence[Label]
    mel: npt.ArrayLike | Frames | None
    engine: str
    precision: str
    threads: int | None


class TrainedModel(SeriesUse):
    """A network with a checkpoint's averaged weights.

    Args:
        checkpoint: of a training.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ModelError: the weights do not fit the configuration, or are not finite.
        UsageError: there is no such device.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.config: Config = checkpoint.config
        self.device_name = device
        self.quantizer = build_quantizer(self.config)
        self.distribution = build_distribution(self.config)
        check_weights(checkpoint.average, parameter_shapes(self.config))
        if device != "auto":
            _ = self.device  # says at once if there is none

    @cached_property
    def device(self) -> torch.device:
        """Where torch runs the network."""
        return choose_device(self.device_name)

    @cached_property
    def network(self) -> Network:
        """The network in torch, in float32; made when something needs it, for the numba engine does not."""
        from wavegen.model.building import build_model
        from wavegen.model.network import load_weights

        network = build_model(self.config).requires_grad_(False)
        load_weights(network, self.checkpoint.average)
        return network.to(self.device).eval()

    def remembered(self, progress: Callable[[int, int], None] | None, split: str) -> list[Clip]:
        """The clips of a split, as far as the training knew them.

        Raises:
            DataError: there are none, or they are not there any more.
            UsageError: the model was exported, without a word on them.
        """
        if self.checkpoint.is_for_use_only:
            raise UsageError("an exported model does not know what it was trained on or what was held out; give files")
        known = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == split}
        corpus = read_corpus(self.config, progress)
        clips = [clip for clip in corpus.clips if clip.split == split and clip.content_hash in known]
        if not clips:
            did = "held out" if split == "validation" else "heard"
            raise DataError(f"{self.config.data.folder}: expected the clips that the training {did}, found none")
        return clips

    @property
    def sample_rate_hz(self) -> int:
        """The rate of all audio that goes in and comes out."""
        return self.config.audio.sample_rate_hz

    @cached_property
    def conditioner(self) -> Conditioner:
        """What the model is conditioned on."""
        return build_conditioner(self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model knows; none in a model without."""
        return self.conditioner.labels

    def read(self, path: str | Path) -> Floats:
        """A file as a waveform at the model's rate, prepared as its training data were.

        Returns:
            (T,) float32, mono.

        Raises:
            AudioError: the file cannot be used.
            UsageError: there is no file.
        """
        audio = self.config.audio
        return load_waveform(
            Path(path), sample_rate_hz=audio.sample_rate_hz, trim_db=audio.trim_db, level=audio.level
        ).waveform

    def mel_of(self, waveform: npt.ArrayLike) -> Frames:
        """The mel frames of a recording, as ``stream`` takes them to make it anew.

        Args:
            waveform: (T,) at the model's rate, such as ``read`` gives.

        Raises:
            UsageError: the model is not conditioned on mel spectrograms.
        """
        if self.conditioner.mel is None:
            raise UsageError("--mel-from: this model is not conditioned on mel spectrograms; leave it out")
        return clip_frames(self.conditioner.mel, self.quantizer, self.quantizer.encode(_mono(waveform)))

    def read_mel(self, path: str | Path) -> Frames:
        """A ``.npy`` file of mel frames, (F, n_mels), in the convention of ``wavegen.audio.features``.

        Raises:
            UsageError: the file is not there, its frames do not follow the model's convention, or it takes none.
        """
        if self.conditioner.mel is None:
            raise UsageError("--mel: this model is not conditioned on mel spectrograms; leave it out")
        return self.conditioner.mel.read(Path(path))

    def read_all(
        self, paths: Sequence[Path], skipped: Callable[[str], None], label: Label | None = None
    ) -> list[ScoredClip]:
        """The clips of files and of folders of files; what cannot be used is told and left out.

        Args:
            paths: files and folders.
            skipped: is told what the user should know.
            label: of all of them; None takes the name of the first sub-folder on the way to a file, or of its folder.

        Raises:
            UsageError: there is nothing at a path, or a clip has no label that the model knows.
            DataError: nothing can be used.
        """
        given = None if label is None else self._weights(label)
        clips: list[ScoredClip] = []
        trained_on = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "train"}
        n_trained_on = 0
        for path in paths:
            if path.is_dir():
                found = find_audio(path)
                files = [path / name for name in found.names]
                for name, reason in found.unusable:
                    skipped(f"skipped: {path / name}: {reason}")
            else:
                files = [path]
            for file in files:
                try:
                    classes = self.quantizer.encode(self.read(file))
                except AudioError as error:
                    skipped(f"skipped: {error}")
                    continue
                condition = self._condition_of(str(file), classes, _folder(file, path) if given is None else given)
                clips.append(ScoredClip(str(file), classes, condition))
                with file.open("rb") as content:
                    n_trained_on += hashlib.file_digest(content, "sha256").hexdigest() in trained_on
        if not clips:
            raise DataError(f"{', '.join(map(str, paths))}: expected audio to score, found none that can be used")
        if n_trained_on:
            skipped(f"{n_trained_on} of {len(clips)} clips were trained on: the figures are not of held-out audio")
        return clips

    def held_out(self, progress: Callable[[int, int], None] | None = None) -> list[ScoredClip]:
        """The clips that the training held out, from its folder.

        Raises:
            DataError: it held out none, or the folder no longer has them.
            UsageError: the model was exported, without a word on them.
        """
        return [
            ScoredClip(clip.name, classes := clip.classes(), self._condition_of(clip.name, classes, clip.label))
            for clip in self.remembered(progress, "validation")
        ]

    def fit_baselines(
        self, notice: Callable[[str], None], progress: Callable[[int, int], None] | None = None
    ) -> Baselines | None:
        """The trivial baselines, fitted on the training split; None, and a notice, where its folder is gone."""
        if self.checkpoint.is_for_use_only:
            notice("no trivial baselines: an exported model does not know the training's recordings")
            return None
        try:
            corpus = read_corpus(self.config, progress)
        except WavegenError as error:
            notice(f"no trivial baselines, they need the training's recordings: {error}")
            return None
        heard = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "train"}
        clips = [clip for clip in corpus.train if clip.content_hash in heard]
        if not clips:
            notice(f"no trivial baselines: {self.config.data.folder} no longer has the training's recordings")
            return None
        return fit_baselines(first_samples(clips, FITTED_SAMPLES), self.quantizer.classes)

    def doubt(self) -> str | None:
        """A sentence on why nothing good can be expected of this model, if so."""
        validation = self.checkpoint.metrics.get("validation") or {}
        if self.is_series:
            return None  # evaluate says how good its forecasts are
        bits = validation.get("held_out_bits", validation.get("validation_bits"))
        baselines = validation.get("baselines", {})
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

    def _weights(self, label: Label) -> Mapping[str, float]:
        """A label that a user gives as weights by name."""
        return parse_label(label, self.labels) if isinstance(label, str) else label

    def _condition_of(
        self, name: str, classes: npt.NDArray[np.integer], label: str | Mapping[str, float] | None
    ) -> ClipCondition | None:
        """The condition of a clip that lies in a folder with the label's name, or that was given weights of labels."""
        if self.labels and not isinstance(label, Mapping) and label not in self.labels:
            raise UsageError(
                f"{name}: expected it in a folder named as one of this model's labels, {shown(self.labels)}, "
                f"found it in '{label}'; say which with --label NAME"
            )
        return self.conditioner.of_clip(classes, label)

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
        labels: Sequence[Label] = (),
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
            labels: of the clips in turn, each a name or weights of several; the model's own in turn by default.
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
        self.check_kind(False, "generate")
        n_samples = None if seconds is None else self.n_samples(seconds)
        if prime is not None and self.conditioner.mel is not None:
            raise UsageError("--prime: a vocoder's sound begins where its spectrogram begins; leave it out")
        conditions = self._conditions([labels] if isinstance(labels, str) else labels, mel, count, notice)
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
        past = None if prime is None else self.quantizer.encode(_mono(prime))
        truncation = Truncation(temperature, top_k, top_p)
        self.distribution.check(truncation)
        request = Request(n_samples, count, seed, truncation, past, conditions)
        return Sampler(self._engine(engine, precision, threads, count, notice), self.quantizer).stream(request)

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
                notice(f"label: {shown([*chosen[0]] if count == 1 else self.labels[:count])}; --label chooses another")
        each: Sequence[Mapping[str, float] | None] = chosen or [None]
        conditions = [self.conditioner.to_generate(label, mel) for label in each]
        known = [condition for condition in conditions if condition is not None]
        return [known[i % len(known)] for i in range(count)] if known else None

    def n_samples(self, seconds: float) -> int:
        """A length in samples.

        Raises:
            UsageError: it is not a number above 0, or less than a sample.
        """
        if not 0 < seconds <= LARGEST_SECONDS:
            raise UsageError(f"--seconds: expected a number above 0, or inf, found {seconds:g}")
        n_samples = round(seconds * self.sample_rate_hz)
        if n_samples < 1:
            raise UsageError(f"--seconds {seconds:g}: shorter than one sample at {self.sample_rate_hz:,} Hz")
        return n_samples

    @property
    def precision_costs(self) -> dict[str, float]:
        """What lower precisions of these weights cost in sampling, in bits/sample; empty if it was not measured."""
        costs: dict[str, float] = self.checkpoint.metrics.get("precision_costs") or {}
        return costs

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

    def score(self, waveform: npt.ArrayLike, label: Label | None = None) -> float:
        """How well the model predicts a clip from its start, in bits/sample.

        Args:
            waveform: (T,) at the model's rate, such as ``read`` gives; values outside [-1, 1] are clipped.
            label: of the clip, for a model with labels: a name or weights of several; its mel frames are computed where
                the model needs them.

        Raises:
            UsageError: it is not one clip of one sample or more, or the model has no such label.
        """
        from wavegen.evaluation.likelihood import model_bits

        self.check_kind(False, "score")
        classes = self.quantizer.encode(_mono(waveform))
        condition = self.conditioner.of_clip(classes, {} if label is None else self._weights(label))
        return model_bits(self.network, [classes], self.quantizer.silence, None, [condition])[0] / len(classes)


def load(path: str | Path, device: str = "auto") -> TrainedModel:
    """Load a run's best checkpoint, or a checkpoint file.

    Args:
        path: a run folder or a ``.safetensors`` file.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UsageError: there is nothing to load at the path.
        CheckpointError: the checkpoint is damaged or of another version.
        ModelError: its weights are not finite.
    """
    return TrainedModel(load_checkpoint(find_checkpoint(Path(path))), device)


def train(
    folder: str | Path | None = None,
    config: Config | str | Path = DEFAULT_PRESET,
    *,
    run: str | Path | None = None,
    device: str = "auto",
    init_from: str | Path | None = None,
    observers: Sequence[Observer] = (),
    notice: Callable[[str], None] = print,
) -> TrainedModel:
    """Train a model on a folder of recordings, or of series.

    Args:
        folder: of the recordings; None for the configuration's, or for made-up series.
        config: a configuration, a preset's name, or a YAML file.
        run: the run folder; ``runs/`` and the folder's name by default.
        device: auto, cpu, cuda or cuda:N.
        init_from: a run or checkpoint to start from.
        observers: are told what happens.
        notice: is told what the user should know.

    Returns:
        The best model of the training.

    Raises:
        ConfigError, UsageError, DataError: something given is wrong; the message says what.
        TrainingError: the loss is not finite again and again.
        LostProcess: on several processes: another one is gone; the state is saved.
        Interrupted: after Ctrl-C; the state is saved.
    """
    from wavegen.training import launch
    from wavegen.training.distributed import joined

    settings = config if isinstance(config, Config) else load_config(config)
    if folder is not None:
        settings = settings.with_values("data", folder=str(Path(folder).absolute()))
    name = settings.data.synthetic or Path(settings.data.folder or "").absolute().name
    run_folder = RunFolder(Path(run) if run is not None else Path("runs") / name)
    source = None if init_from is None else Path(init_from)
    with joined(device) as group:
        listeners, say = (observers, notice) if group.speaks else ((), _say_nothing)
        trainer = launch.new_run(settings, run_folder, group, listeners, say, init_from=source)
        trainer.fit()
        best = load_checkpoint(find_checkpoint(run_folder.path)) if group.speaks else None
        best = group.from_first(best)
    assert best is not None
    return TrainedModel(best, device)


def _say_nothing(text: str) -> None:
    """Say nothing: another process does."""


def _folder(file: Path, given: Path) -> str:
    """A file's label as a corpus finds it: the first folder on the way to it, or the folder that it lies in."""
    inside = file.relative_to(given).parts if given.is_dir() else ()
    return inside[0] if len(inside) > 1 else file.absolute().parent.name


def _mono(waveform: npt.ArrayLike) -> Floats:
    """A waveform as a (T,) float32 array."""
    array = np.asarray(waveform, dtype=np.float32)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise UsageError(f"expected a waveform of finite numbers, (T,) with T >= 1, found the shape {array.shape}")
    return array
