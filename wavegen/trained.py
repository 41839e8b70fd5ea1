"""A trained model, ready for use: load a checkpoint, generate and score audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.audio.finding import find_audio
from wavegen.audio.quantize import Floats
from wavegen.audio.signal import load_waveform
from wavegen.config import Config
from wavegen.data.reading import build_quantizer, first_samples, read_corpus
from wavegen.device import choose_device
from wavegen.errors import AudioError, DataError, WavegenError
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, fit_baselines
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.outputs import Truncation
from wavegen.model.wavenet import build_model, load_weights
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.training.checkpoint import Checkpoint, load_checkpoint
from wavegen.training.run_folder import find_checkpoint

NamedClip = tuple[str, npt.NDArray[np.integer]]


class TrainedModel:
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
        self.device = choose_device(device)
        self.quantizer = build_quantizer(self.config)
        self.network = build_model(self.config).requires_grad_(False)
        load_weights(self.network, checkpoint.average)
        self.network.to(self.device).eval()

    @property
    def sample_rate_hz(self) -> int:
        """The rate of all audio that goes in and comes out."""
        return self.config.audio.sample_rate_hz

    def read(self, path: Path) -> npt.NDArray[np.integer]:
        """A file's classes, prepared as the model's training data were.

        Raises:
            AudioError: the file cannot be used.
        """
        audio = self.config.audio
        loaded = load_waveform(path, sample_rate_hz=audio.sample_rate_hz, trim_db=audio.trim_db, level=audio.level)
        return self.quantizer.encode(loaded.waveform)

    def read_all(self, paths: Sequence[Path], skipped: Callable[[str], None]) -> list[NamedClip]:
        """The clips of files and of folders of files; what cannot be used is told and left out.

        Raises:
            UsageError: there is nothing at a path.
            DataError: nothing can be used.
        """
        clips: list[NamedClip] = []
        for path in paths:
            if path.is_dir():
                found = find_audio(path)
                files = [(name, path / name) for name in found.names]
                for name, reason in found.unusable:
                    skipped(f"skipped: {name}: {reason}")
            else:
                files = [(str(path), path)]
            for name, file in files:
                try:
                    clips.append((name, self.read(file)))
                except AudioError as error:
                    skipped(f"skipped: {error}")
        if not clips:
            raise DataError(f"{', '.join(map(str, paths))}: expected audio to score, found none that can be used")
        return clips

    def held_out(self, progress: Callable[[int, int], None] | None = None) -> list[NamedClip]:
        """The clips that the training held out, from its folder.

        Raises:
            DataError: it held out none, or the folder no longer has them.
        """
        held_out = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "validation"}
        corpus = read_corpus(self.config, progress)
        clips: list[NamedClip] = [
            (clip.name, clip.classes()) for clip in corpus.validation if clip.content_hash in held_out
        ]
        if not clips:
            raise DataError(f"{self.config.data.folder}: expected the clips that the training held out, found none")
        return clips

    def fit_baselines(
        self, notice: Callable[[str], None], progress: Callable[[int, int], None] | None = None
    ) -> Baselines | None:
        """The trivial baselines, fitted on the training split; None, and a notice, where its folder is gone."""
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
        bits = validation.get("held_out_bits", validation.get("validation_bits"))
        trivial = validation.get("baselines", {}).get("order-2 Markov")
        heard = f"it has made {self.checkpoint.step:,} steps"
        if bits is None or trivial is None:
            return f"this model was never validated, expect noise: {heard}" if self.checkpoint.step < 1000 else None
        if bits < trivial:
            return None
        return (
            f"this model is hardly trained, expect noise: {heard} and has {bits:.2f} bits/sample on held-out audio, "
            f"where counting pairs of samples (order-2 Markov) has {trivial:.2f}; train longer"
        )

    def stream(
        self,
        seconds: float | None,
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        prime: npt.NDArray[np.integer] | None = None,
        engine: str = "auto",
    ) -> Iterator[Floats]:
        """Generate audio chunk by chunk.

        Args:
            seconds: length; None goes on without end.
            count: clips, made side by side.
            temperature: above 1 wilder, below 1 tamer; 0 takes the likeliest class always.
            top_k: draw among the k likeliest classes only.
            top_p: draw among the likeliest classes that together reach this probability only.
            seed: the same seed gives the same audio.
            prime: classes to continue, as ``read`` gives them.
            engine: auto, torch or reference.

        Yields:
            (count, n) float32 in [-1, 1].

        Raises:
            UsageError: an argument is out of its range.
            ModelError: the model's outputs are not finite.
        """
        n_samples = None if seconds is None else round(seconds * self.sample_rate_hz)
        request = Request(n_samples, count, seed, Truncation(temperature, top_k, top_p), prime)
        return Sampler(build_engine(engine, self.network), self.quantizer).stream(request)

    def score(self, classes: npt.NDArray[np.integer]) -> float:
        """Bits/sample of a clip, from its start, given as ``read`` gives it: (T,) classes."""
        return model_bits(self.network, [classes], self.quantizer.silence)[0] / max(1, len(classes))


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
