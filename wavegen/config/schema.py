"""The schema of a configuration: its sections and keys, their ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

# Keys of the section `model` that only some kinds have.
KEYS_OF_KINDS: dict[str, tuple[str, ...]] = {
    "wavenet": (
        *("cycles", "dilation_cycle", "kernel_size", "residual_channels", "gate_channels", "skip_channels"),
        *("head_channels", "label_channels", "activation", "bias", "dropout", "weight_norm"),
    ),
    "stack": ("embedding_channels", "layers", "context"),
}
RECURRENT = ("rnn", "gru", "lstm")  # kinds of layers that have a state


def foreign_keys(kind: str) -> set[str]:
    """Return the keys of the section ``model`` that this kind of model does not have."""
    return {key for keys in KEYS_OF_KINDS.values() for key in keys} - set(KEYS_OF_KINDS[kind])


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values are not converted from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudioConfig(Section):
    """How files become waveforms."""

    sample_rate_hz: int = Field(16000, ge=1000, le=192000, description="everything is resampled to this rate")
    remove_dc: bool = Field(True, description="subtract each clip's mean")
    trim_db: float | None = Field(
        40.0,
        gt=0,
        le=120,
        description="cut leading and trailing parts this far below the loudest part; null keeps them",
    )
    pause_seconds: float | None = Field(
        1.0,
        gt=0,
        le=3600,
        description="shorten pauses inside a clip, parts as far below the loudest, to this length; null keeps them",
    )
    level: Literal["keep", "peak", "rms"] = Field("peak", description="scale each clip to a common level")
    max_gain_db: float | None = Field(
        30.0, ge=0, le=120, description="the most by which a clip's level is raised; null for no limit"
    )


class QuantizationConfig(Section):
    """How waveforms become classes."""

    kind: Literal["mu_law", "linear"] = Field("mu_law", description="companding")
    classes: int = Field(256, ge=2, le=65536, description="number of levels; above 4096 for mixtures of linear classes")


class DataConfig(Section):
    """Which recordings, and how they are split."""

    folder: str | None = Field(None, description="the folder of recordings; the command line's DIR goes here")
    validation: Annotated[float, Field(ge=0, le=0.5)] | str = Field(
        0.1, description="share of the clips, or a folder, or a text file of file names"
    )
    labels: Literal["none", "subfolders"] = Field("none", description="what a clip's label is")
    following: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="share of the training clips that follow the end of another one; the rest begin after silence",
    )
    label_names: Literal["auto"] | Annotated[list[str], Field(min_length=1, max_length=1000)] = Field(
        "auto", description="the labels in the model's order; auto takes those that are found, sorted"
    )


class SeriesConfig(Section):
    """Series of numbers, for output.kind regression."""

    synthetic: Literal["waves"] | None = Field(
        None, description="train on synthetic series: waves are sums of two sines and noise; null reads data.folder"
    )
    points: int = Field(60, ge=2, le=1 << 20, description="length of each synthetic series")
    offset: Literal["auto"] | Annotated[float, Field(ge=-1e30, le=1e30)] = Field(
        "auto", description="the network sees (x - offset) / scale; auto is the mean of the training series"
    )
    scale: Literal["auto"] | Annotated[float, Field(ge=1e-30, le=1e30)] = Field(
        "auto", description="as offset; auto is the standard deviation of the training series"
    )


class MelConfig(Section):
    """Mel spectrograms that the network is conditioned on, sample by sample: a vocoder."""

    n_mels: int | None = Field(None, ge=1, le=512, description="mel bands, such as 80; null for no spectrogram")
    n_fft: int = Field(1024, ge=16, le=1 << 16, description="samples in a frame's window")
    hop_length: int = Field(200, ge=1, le=1 << 16, description="samples from one frame to the next")
    f_min: float = Field(0.0, ge=0, le=96000, description="lowest frequency in Hz")
    f_max: float | None = Field(None, gt=0, le=96000, description="highest frequency in Hz; null: half the sample rate")
    upsampling: int = Field(
        1, ge=1, le=1 << 16, description="learned steps in a frame, a divisor of hop_length; 1 repeats each frame"
    )


class LayerConfig(Section):
    """A layer of a stack."""

    kind: Literal["conv", "dense", "rnn", "gru", "lstm", "average_pool", "max_pool", "concatenate", "add"] = Field(
        description="a causal dilated convolution, a 1x1 layer, a recurrent layer, causal dilated pooling, or a join "
        "with an earlier layer"
    )
    name: str | None = Field(None, min_length=1, description="for layers above to join with")
    channels: int | None = Field(None, ge=1, le=8192, description="of conv and dense, and of a recurrent state")
    kernel_size: int = Field(2, ge=1, le=1024, description="taps of conv and of pooling")
    dilation: int = Field(1, ge=1, le=1 << 20, description="steps between taps")
    activation: Literal["none", "relu", "tanh", "sigmoid"] = Field("none", description="of conv and dense")
    source: str | None = Field(None, min_length=1, description="the layer that concatenate and add join with")
    layer_norm: bool = Field(False, description="of rnn: layer normalization of its state before the tanh")

    @model_serializer(mode="wrap")
    def _given_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the keys that were given alone: each kind of layer has keys of its own."""
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    def width(self, below: int, source: int) -> int:
        """Channels of the layer's output.

        Args:
            below: channels of the layer below.
            source: channels of the layer that it joins with.
        """
        return below + source if self.kind == "concatenate" else self.channels or below


class ModelConfig(Section):
    """The network: a WaveNet (van den Oord et al., 2016), or a stack of layers."""

    kind: Literal["wavenet", "stack"] = Field("wavenet", description="the kind of model")
    cycles: int = Field(2, ge=1, le=20, description="how often the dilation cycle repeats")
    dilation_cycle: (
        Annotated[int, Field(ge=1, le=20)]
        | Annotated[list[Annotated[int, Field(ge=1, le=1 << 20)]], Field(min_length=1, max_length=100)]
    ) = Field(9, description="n for 1, 2, 4, ... 2^(n-1); or the dilations themselves")
    kernel_size: int = Field(2, ge=2, le=64, description="taps of each dilated convolution")
    residual_channels: int = Field(32, ge=1, le=4096, description="channels between the blocks")
    gate_channels: int = Field(32, ge=1, le=4096, description="channels of the filter, and as many of the gate")
    skip_channels: int = Field(128, ge=1, le=8192, description="channels of the summed skips")
    head_channels: int = Field(128, ge=1, le=8192, description="channels between the head's two layers")
    input: Literal["embedding", "one_hot", "scalar"] = Field("embedding", description="how a class enters")
    label_channels: int = Field(16, ge=1, le=4096, description="numbers that describe a label, where there are labels")
    activation: Literal["gated", "relu", "tanh"] = Field(
        "gated", description="of each block: tanh of the filter times sigmoid of the gate; or one convolution's"
    )
    bias: bool = Field(True, description="biases of the convolutions, the skips, the head and a softmax")
    dropout: float = Field(0.0, ge=0, le=0.9, description="share of each block's outputs left out in training")
    weight_norm: bool = Field(
        False, description="weights as a direction and a gain for each output, in the blocks, the skips and the head"
    )
    embedding_channels: int = Field(32, ge=1, le=8192, description="width of an embedding before other kinds of model")
    layers: list[LayerConfig] = Field([], max_length=1000, description="of a stack, the lowest first")
    context: int = Field(
        512, ge=1, le=1 << 20, description="steps before a window's first prediction that fill recurrent layers' states"
    )

    @model_serializer(mode="wrap")
    def _own_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the keys of its kind alone; ``context`` where a layer has a state."""
        foreign = foreign_keys(self.kind) | (set() if self.has_memory else {"context"})
        return {key: value for key, value in dump(self).items() if key not in foreign}

    @property
    def has_memory(self) -> bool:
        """Whether a layer carries a state along, so that a prediction depends on all of the past."""
        return any(layer.kind in RECURRENT for layer in self.layers)

    @property
    def conv_channels(self) -> int:
        """Outputs of each block's convolution: filter and gate, or gate_channels alone."""
        return (2 if self.activation == "gated" else 1) * self.gate_channels

    @property
    def dilations(self) -> list[int]:
        """The dilation of every block, in order."""
        cycle = self.dilation_cycle
        return (cycle if isinstance(cycle, list) else [2**i for i in range(cycle)]) * self.cycles


class OutputConfig(Section):
    """The output distribution, or the forecast of a series."""

    kind: Literal["softmax", "logistic_mixture", "gaussian_mixture", "regression"] = Field(
        "softmax",
        description="a probability for each class, a mixture of distributions over the amplitude, or the next values "
        "of series of numbers",
    )
    components: int = Field(10, ge=1, le=100, description="of a mixture")
    error: Literal["squared", "absolute"] = Field("squared", description="that a regression is trained to make small")
    horizon: int = Field(1, ge=1, le=4096, description="next values that a regression forecasts at every position")


class TrainingConfig(Section):
    """How the network is trained."""

    steps: int | None = Field(None, ge=1, le=10**9, description="optimizer steps; or give minutes")
    minutes: float | None = Field(
        None,
        gt=0,
        le=10**6,
        description="time for the whole training, turned into steps at the start; with steps, the fewer count",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        8, description="windows in a step; auto takes as many as the memory holds, up to 16,384 targets"
    )
    window_targets: int = Field(2048, ge=1, le=1 << 22, description="predictions in a window")
    optimizer: Literal["muon", "adamw", "nadam"] = Field(
        "muon", description="muon: of the matrices between the first layer and the last, AdamW serves all others"
    )
    learning_rate: float = Field(0.016, gt=0, le=1, description="AdamW's and NAdam's, the schedule's peak")
    matrix_learning_rate: float = Field(0.02, gt=0, le=1, description="Muon's, the schedule's peak")
    warmup_steps: int = Field(100, ge=0, le=10**9, description="steps of linear rise at the start")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of matrices, times their learning rate")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null for none")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="of the averaged weights that everything uses")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the matrix products")
    backend: Literal["auto", "fused", "torch", "compile"] = Field(
        "auto", description="how gradients are computed: fused is for CPUs, compile is torch.compile"
    )
    accumulation: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        "auto", description="slices of the batch, one for each thread at a time"
    )
    activation_checkpointing: bool = Field(False, description="compute gates again instead of keeping them")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field("auto", description="on a CPU")
    seed: int = Field(0, ge=0, lt=1 << 63, description="of weights and windows")
    timeout_seconds: float = Field(
        600.0, gt=0, le=10**6, description="seconds without a response before a process is considered dead"
    )
    validate_every: int = Field(500, ge=1, le=10**9, description="steps between validations")
    validation_seconds: float | None = Field(
        30.0,
        gt=0,
        le=10**6,
        description="held-out audio scored at each validation; null for all",
    )
    checkpoint_every: int = Field(500, ge=1, le=10**9, description="steps between checkpoints")
    keep_last: int = Field(3, ge=1, le=10**9, description="checkpoints kept, besides the best")
    audition_every: int = Field(2000, ge=0, le=10**9, description="steps between auditions; 0 for none")
    audition_seconds: float = Field(4.0, gt=0, le=60, description="length of an audition")

    @model_validator(mode="before")
    @classmethod
    def _steps_by_default(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("steps") is None and values.get("minutes") is None:
            return {**values, "steps": 20000}
        return values


class Sections(Section):
    """All sections, each right by itself; ``Config`` is what is right as a whole."""

    audio: AudioConfig = Field(default_factory=AudioConfig)
    quantization: QuantizationConfig = Field(default_factory=QuantizationConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    series: SeriesConfig = Field(default_factory=SeriesConfig)
    mel: MelConfig = Field(default_factory=MelConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig(steps=20000))

    @property
    def is_series(self) -> bool:
        """Whether the data are series of numbers, and not sound."""
        return self.output.kind == "regression"

    @property
    def rate_hz(self) -> int | None:
        """Samples per second of the audio that is modelled; None for series of numbers, which have no rate."""
        return None if self.is_series else self.audio.sample_rate_hz

    @property
    def data_source(self) -> str | None:
        """The folder that is trained on, or the name of synthetic series; None where neither is given."""
        return self.series.synthetic or self.data.folder

    @property
    def n_classes(self) -> int:
        """Levels of what the network hears; 0 where it is series of numbers."""
        return 0 if self.is_series else self.quantization.classes

    @property
    def n_labels(self) -> int:
        """Labels of the network; one as long as it is not known which there are."""
        if self.data.labels == "none":
            return 0
        return 1 if self.data.label_names == "auto" else len(self.data.label_names)
