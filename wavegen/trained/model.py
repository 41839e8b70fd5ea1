"""A network with a checkpoint's averaged weights, and what all of its uses need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats, build_quantizer
from wavegen.audio.waveform import build_preparation, load_waveform
from wavegen.config import Config
from wavegen.data.conditioning import Conditioner, build_conditioner, parse_label
from wavegen.data.corpus import Corpus
from wavegen.device import choose_device
from wavegen.errors import DataError, UsageError
from wavegen.model.building import build_distribution, parameter_shapes
from wavegen.model.shapes import check_weights
from wavegen.runs.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

    from wavegen.model.network import Network

Label = str | Mapping[str, float]  # a name, "NAME=WEIGHT,NAME=WEIGHT", or weights by name


class Model:
    """What all uses of a trained model begin with; ``TrainedModel`` says what it is given and what it raises."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.config: Config = checkpoint.config
        self.device_name = device
        self.quantizer = build_quantizer(self.config)
        self.distribution = build_distribution(self.config)
        self._corpus: Corpus[Any] | None = None
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

    @property
    def is_series(self) -> bool:
        """Whether it is a model of series of numbers, and not of sound."""
        return self.config.is_series

    def check_kind(self, wants_series: bool, call: str) -> None:
        """Make sure that the model is of the kind that a call is for.

        Raises:
            UsageError: it is of the other one.
        """
        if self.is_series != wants_series:
            kinds = ("a model of sound", "a model of series of numbers")
            raise UsageError(f"{call}: expected {kinds[wants_series]}, found {kinds[self.is_series]}")

    def corpus(self, progress: Callable[[int, int], None] | None = None) -> Corpus[Any]:
        """What the training's folder holds now; read at the first call.

        Raises:
            UsageError: the folder is not there.
            DataError: it holds nothing to train on.
        """
        if self._corpus is None:
            from wavegen.training.task_registry import read_corpus

            self._corpus = read_corpus(self.config, progress)
        return self._corpus

    def remembered(self, progress: Callable[[int, int], None] | None, split: str) -> list[Any]:
        """The clips of a split, as far as the training knew them.

        Raises:
            DataError: there are none, or they are not there any more.
            UsageError: the model was exported, without a word on them.
        """
        if self.checkpoint.is_for_use_only:
            raise UsageError("an exported model does not know what it was trained on or what was held out; give files")
        known = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == split}
        clips = [clip for clip in self.corpus(progress).clips if clip.split == split and clip.content_hash in known]
        if not clips:
            did = "held out" if split == "validation" else "heard"
            raise DataError(f"{self.config.data.folder}: expected the clips that the training {did}, found none")
        return clips

    def read(self, path: str | Path) -> Floats:
        """A file as a waveform at the model's rate, prepared as its training data were.

        Returns:
            (T,) float32, mono.

        Raises:
            AudioError: the file cannot be used.
            UsageError: there is no file.
        """
        return load_waveform(Path(path), build_preparation(self.config)).waveform

    def read_prime(self, path: str | Path) -> Floats:
        """Read a file to continue: prepared as the training data were, but with all of its silence.

        Returns:
            (T,) float32, mono.

        Raises:
            AudioError, UsageError: as ``read``.
        """
        preparation = replace(build_preparation(self.config), trim_db=None)
        return load_waveform(Path(path), preparation).waveform

    def _weights(self, label: Label) -> Mapping[str, float]:
        """A label that a user gives as weights by name."""
        return parse_label(label, self.labels) if isinstance(label, str) else label


def mono(waveform: npt.ArrayLike) -> Floats:
    """A waveform as a (T,) float32 array."""
    array = np.asarray(waveform, dtype=np.float32)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise UsageError(f"expected a waveform of finite numbers, (T,) with T >= 1, found the shape {array.shape}")
    return array
