"""The schema of a configuration: its sections and keys, their ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

# Keys of the section `model` that only some kinds have.
KEYS_OF_KINDS: dict[str, tuple[str, ...]] = {
    "wavenet": (
        *("cycles", "dilation_cycle", "kernel_size", "residual_channels", "gate_channels", "skip_channels"),
        *("head_channels", "label_channels", "activation", "bias", "dropout", "weight_norm"),
    ),
    "stack": ("embedding_channels", "layers", "context", "output_layer"),
}
TEMPERATURE_OF_WEIGHTED = 0.99  # gives pauses their share back (docs/sound.md)
RECURRENT = ("rnn", "gru", "lstm")  # kinds of layers that have a state
_TAPS = ("kernel_size", "dilation", "stride")  # of layers whose outputs are made of some steps of their input
# Keys of a layer in a stack besides its kind and name.
KEYS_OF_LAYERS: dict[str, tuple[str, ...]] = {
    "conv": ("channels", "activation", *_TAPS),
    "dense": ("channels", "activation"),
    "rnn": ("channels", "layer_norm", "layer_norm_epsilon"),
    **dict.fromkeys(("gru", "lstm"), ("channels",)),
    **dict.fromkeys(("average_pool", "max_pool"), _TAPS),
    **dict.fromkeys(("concatenate", "add"), ("source",)),
}


def foreign_keys(kind: str) -> set[str]:
    """Return the keys of the section ``model`` that this kind of model does not have."""
    return {key for keys in KEYS_OF_KINDS.values() for key in keys} - set(KEYS_OF_KINDS[kind])


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values are not converted from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudioConfig(Section):
    """The preparation of recordings."""

    sample_rate_hz: int = Field(16000, ge=1000, le=192000, description="sample rate that recordings are resampled to")
    remove_dc: bool = Field(True, description="subtract each clip's mean")
    trim_db: float | None = Field(
        40.0, gt=0, le=120, description="cut ends of a clip that are so many dB below its loudest part; null keeps them"
    )
    pause_seconds: float | None = Field(
        0.3, gt=0, le=3600, description="shorten pauses, by trim_db's threshold, to these seconds; null keeps them"
    )
    level: Literal["keep", "peak", "rms"] = Field("peak", description="peak or RMS level of all clips, or their own")
    max_gain_db: float | None = Field(30.0, ge=0, le=120, description="largest gain of a clip in dB; null for no limit")


class QuantizationConfig(Section):
    """The quantization of waveforms to classes."""

    kind: Literal["mu_law", "linear"] = Field("mu_law", description="companding of amplitudes to classes")
    classes: int = Field(256, ge=2, le=65536, description="number of classes; above 4096 linear ones and mixtures only")


class DataConfig(Section):
    """The recordings and their split."""

    folder: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="recordings: a folder, a file, a pattern, a list of files, or several; set by the command line",
    )
    validation: Annotated[float, Field(ge=0, le=0.5)] | str = Field(
        0.1, description="held-out clips: a share, a folder, or a text file of file names"
    )
    labels: Literal["none", "subfolders"] = Field("none", description="labels of the clips: their sub-folders' names")
    following: float = Field(
        0.75, ge=0, lt=1, description="share of training clips that follow another's end; others begin after silence"
    )
    beginnings: float = Field(0.1, ge=0, le=1, description="share of a training that repeats the beginnings of clips")
    quiet_weight: float = Field(
        0.4,
        ge=0.01,
        le=1,
        description="how often windows 20 dB and more below the loud ones are trained on, relative to the others",
    )
    label_names: Literal["auto"] | Annotated[list[str], Field(min_length=1, max_length=1000)] = Field(
        "auto", description="labels in the model's order; auto takes the labels of the recordings, sorted"
    )

    @property
    def sources(self) -> list[str]:
        """The recordings that ``folder`` names, one entry or several; none where it is null."""
        return self.folder if isinstance(self.folder, list) else [] if self.folder is None else [self.folder]


class SeriesConfig(Section):
    """Series of numbers, for output.kind regression."""

    synthetic: Literal["waves"] | None = Field(
        None, description="train on synthetic series: waves are sums of two sines and noise; null reads data.folder"
    )
    points: int = Field(60, ge=2, le=1 << 20, description="number of values in each synthetic series")
    offset: Literal["auto"] | Annotated[float, Field(ge=-1e30, le=1e30)] = Field(
        "auto", description="the network sees (x - offset) / scale; auto is the mean of the training series"
    )
    scale: Literal["auto"] | Annotated[float, Field(ge=1e-30, le=1e30)] = Field(
        "auto",
        description="the network sees (x - offset) / scale; auto is the standard deviation of the training series",
    )
    windows: Literal["anywhere", "aligned"] = Field(
        "anywhere", description="where training windows begin: anywhere, or with a series; long ones are cut from there"
    )
    positions: Literal["all", "last"] = Field("all", description="positions of each series that are trained and scored")


class MelConfig(Section):
    """Mel spectrograms that the network is conditioned on, sample by sample: a vocoder."""

    n_mels: int | None = Field(None, ge=1, le=512, description="mel bands, such as 80; null for no spectrogram")
    n_fft: int = Field(1024, ge=16, le=1 << 16, description="samples in a frame's window")
    hop_length: int = Field(200, ge=1, le=1 << 16, description="samples from one frame to the next")
    f_min: float = Field(0.0, ge=0, le=96000, description="lowest frequency in Hz")
    f_max: float | None = Field(None, gt=0, le=96000, description="highest frequency in Hz; null: half the sample rate")
    upsampling: int = Field(
        1, ge=1, le=1 << 16, description="rows learned for each frame, a divisor of hop_length; 1 repeats each frame"
    )

    @property
    def width(self) -> int:
        """Columns of a frame; 0 for no frames."""
        return self.n_mels or 0


Finite = Annotated[float, Field(ge=-1e30, le=1e30)]


class FeaturesConfig(Section):
    """Features that the network is conditioned on, frame by frame: a file name.npy beside each name.wav."""

    columns: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="columns D of the files' arrays (F, D); auto takes the first file's; null for no features"
    )
    hop: Literal["auto"] | Annotated[int, Field(ge=1, le=1 << 16)] = Field(
        "auto", description="samples of the model's rate from one frame to the next; auto finds it from the lengths"
    )
    upsampling: int = Field(4, ge=1, le=1 << 16, description="rows learned for each frame; 1 repeats each frame")
    mean: Literal["auto"] | Annotated[list[Finite], Field(min_length=1, max_length=1024)] = Field(
        "auto", description="the network sees (x - mean) / scale; auto is each column's mean in the training split"
    )
    scale: (
        Literal["auto"]
        | Annotated[list[Annotated[float, Field(ge=1e-30, le=1e30)]], Field(min_length=1, max_length=1024)]
    ) = Field(
        "auto", description="the network sees (x - mean) / scale; auto is each column's deviation in the training split"
    )

    @property
    def width(self) -> int:
        """Columns of a frame; 1 while they are not known, 0 for no frames."""
        return 1 if self.columns == "auto" else self.columns or 0

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next; those of the other frames while they are not known."""
        return MelConfig().hop_length if self.hop == "auto" else self.hop


class LayerConfig(Section):
    """A layer of a stack."""

    kind: Literal["conv", "dense", "rnn", "gru", "lstm", "average_pool", "max_pool", "concatenate", "add"] = Field(
        description="a causal dilated convolution, a 1x1 layer, a recurrent layer, causal dilated pooling, or a join "
        "with an earlier layer"
    )
    name: str | None = Field(None, min_length=1, description="name of the layer, by which later layers join with it")
    channels: int | None = Field(None, ge=1, le=8192, description="output channels, or size of a recurrent state")
    kernel_size: int = Field(2, ge=1, le=1024, description="taps of a convolution or pooling layer")
    dilation: int = Field(1, ge=1, le=1 << 20, description="steps between taps")
    stride: int = Field(1, ge=1, le=1024, description="steps between outputs; above 1 for regressions only")
    activation: Literal["none", "relu", "tanh", "sigmoid"] = Field("none", description="activation of conv and dense")
    source: str | None = Field(None, min_length=1, description="name of the layer that concatenate or add joins with")
    layer_norm: bool = Field(False, description="layer normalization of an rnn's state before the tanh")
    layer_norm_epsilon: float = Field(1e-5, gt=0, le=1, description="added to the variance that layer_norm divides by")

    @model_serializer(mode="wrap")
    def _given_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the keys that were given alone: each kind of layer has keys of its own."""
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    @property
    def own_keys(self) -> set[str]:
        """Keys that a layer of its kind has; layer_norm_epsilon with layer_norm alone."""
        return {"kind", "name", *KEYS_OF_LAYERS[self.kind]} - (set() if self.layer_norm else {"layer_norm_epsilon"})

    def width(self, below: int, source: int) -> int:
        """Channels of the layer's output.

        Args:
            below: channels of the layer below.
            source: channels of the layer that it joins with.
        """
        return below + source if self.kind == "concatenate" else self.channels or below


class ModelConfig(Section):
    """The network: a WaveNet (van den Oord et al., 2016), or a stack of layers."""

    kind: Literal["wavenet", "stack"] = Field("wavenet", description="kind of model")
    cycles: int = Field(2, ge=1, le=20, description="repetitions of the dilation cycle")
    dilation_cycle: (
        Annotated[int, Field(ge=1, le=20)]
        | Annotated[list[Annotated[int, Field(ge=1, le=1 << 20)]], Field(min_length=1, max_length=100)]
    ) = Field(9, description="n for the dilations 1, 2, 4, ... 2^(n-1), or a list of dilations")
    kernel_size: int = Field(2, ge=2, le=64, description="taps of each dilated convolution")
    residual_channels: int = Field(32, ge=1, le=4096, description="channels between the blocks")
    gate_channels: int = Field(32, ge=1, le=4096, description="channels of the filter and of the gate, each")
    skip_channels: int = Field(128, ge=1, le=8192, description="channels of the summed skips")
    head_channels: int = Field(128, ge=1, le=8192, description="channels between the head's two layers")
    input: Literal["embedding", "one_hot", "scalar"] = Field(
        "embedding", description="input layer: an embedding, a one-hot vector, or the class as one number"
    )
    label_channels: int = Field(16, ge=1, le=4096, description="size of a label's embedding")
    activation: Literal["gated", "relu", "tanh"] = Field(
        "gated", description="activation of each block: gated is tanh of the filter times sigmoid of the gate"
    )
    bias: bool = Field(True, description="biases of the convolutions, the skips, the head and a softmax")
    dropout: float = Field(0.0, ge=0, le=0.9, description="dropout rate of each block's outputs")
    weight_norm: bool = Field(False, description="weight normalization of the blocks, the skips and the head")
    embedding_channels: int = Field(32, ge=1, le=8192, description="size of a class's embedding in a stack")
    layers: list[LayerConfig] = Field([], max_length=1000, description="layers of a stack, the lowest first")
    context: int = Field(512, ge=1, le=1 << 20, description="steps in which recurrent layers warm up before a window")
    output_layer: bool = Field(True, description="last 1x1 layer of a stack; false: the uppermost layer forecasts")

    @model_serializer(mode="wrap")
    def _own_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the keys of its kind alone; ``context`` where a layer has a state."""
        foreign = foreign_keys(self.kind) | (set() if self.has_memory else {"context"})
        return {key: value for key, value in dump(self).items() if key not in foreign}

    @property
    def has_memory(self) -> bool:
        """True if a layer is recurrent: a prediction then depends on all of the past."""
        return any(layer.kind in RECURRENT for layer in self.layers)

    @property
    def positions(self) -> slice:
        """Positions of a series with a forecast: all; with strides every n-th from where all layers are filled."""
        reach, spacing = 0, 1
        for layer in self.layers:
            reach += (layer.kernel_size - 1) * layer.dilation * spacing if "dilation" in layer.own_keys else 0
            spacing *= layer.stride
        return slice(0 if spacing == 1 else reach, None, spacing)

    @property
    def conv_channels(self) -> int:
        """Outputs of each block's convolution: filter and gate, or gate_channels alone."""
        return (2 if self.activation == "gated" else 1) * self.gate_channels

    @property
    def dilations(self) -> list[int]:
        """The dilation of every block, in order."""
        cycle = self.dilation_cycle
        return (cycle if isinstance(cycle, list) else [2**i for i in range(cycle)]) * self.cycles


OutputKind = Literal["softmax", "logistic_mixture", "gaussian_mixture", "regression"]


class OutputConfig(Section):
    """The output distribution, or the forecast of a series."""

    kind: OutputKind = Field(
        "softmax", description="a probability for each class, a mixture over the amplitude, or a series' next values"
    )
    components: int = Field(10, ge=1, le=100, description="components of a mixture")
    error: Literal["squared", "absolute"] = Field("squared", description="loss of a regression")
    horizon: int = Field(1, ge=1, le=4096, description="number of values that a regression forecasts at every position")


class TrainingConfig(Section):
    """The training of the network."""

    steps: int | None = Field(None, ge=1, le=10**9, description="number of optimizer steps; or give minutes")
    minutes: float | None = Field(
        None, gt=0, le=10**6, description="duration of the whole training; with steps, the shorter counts"
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        8,
        description="windows in a step; auto fits as many as the memory holds, up to 16,384 targets, on a GPU 131,072",
    )
    window_targets: int = Field(2048, ge=1, le=1 << 22, description="predictions in a window")
    optimizer: Literal["muon", "adamw", "nadam"] = Field(
        "muon", description="optimizer; muon updates the matrices of the inner layers, and AdamW everything else"
    )
    learning_rate: float = Field(0.016, gt=0, le=1, description="peak learning rate of AdamW or NAdam")
    momentum_decay: float = Field(0.004, ge=0, le=1, description="pace at which NAdam's momentum rises")
    matrix_learning_rate: float = Field(0.02, gt=0, le=1, description="peak learning rate of Muon")
    warmup_steps: int = Field(100, ge=0, le=10**9, description="steps of linear warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate schedule after the warm-up")
    weight_decay: float = Field(0.01, ge=0, le=1, description="weight decay of matrices, times their learning rate")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null for no clipping")
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="decay of the averaged weights (EMA), which everything but training uses"
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the matrix products; tf32 and float16 are for GPUs"
    )
    backend: Literal["auto", "fused", "torch", "compile"] = Field(
        "auto", description="backend that computes gradients: fused is for CPUs, compile is torch.compile"
    )
    accumulation: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        "auto", description="gradient accumulation: slices of the batch, one for each thread at a time"
    )
    activation_checkpointing: bool = Field(
        False, description="activation checkpointing: recompute the gates in the backward pass to save memory"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field("auto", description="threads per process")
    seed: int = Field(0, ge=0, lt=1 << 63, description="random seed of weights and windows")
    timeout_seconds: float = Field(
        600.0, gt=0, le=10**6, description="seconds without a response before a process is considered dead"
    )
    validate_every: int = Field(500, ge=1, le=10**9, description="steps between validations")
    validation_seconds: float | None = Field(
        30.0, gt=0, le=10**6, description="seconds of held-out audio scored at each validation; null for all"
    )
    checkpoint_every: int = Field(500, ge=1, le=10**9, description="steps between checkpoints")
    keep_last: int = Field(3, ge=1, le=10**9, description="number of checkpoints to keep, besides the best")
    audition_every: int = Field(2000, ge=0, le=10**9, description="steps between auditions; 0 for none")
    audition_seconds: float = Field(4.0, gt=0, le=60, description="length of an audition in seconds")

    @model_validator(mode="before")
    @classmethod
    def _steps_by_default(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("steps") is None and values.get("minutes") is None:
            return {**values, "steps": 20000}
        return values


class Sections(Section):
    """All sections, each valid by itself; ``Config`` checks them together."""

    audio: AudioConfig = Field(default_factory=AudioConfig)
    quantization: QuantizationConfig = Field(default_factory=QuantizationConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    series: SeriesConfig = Field(default_factory=SeriesConfig)
    mel: MelConfig = Field(default_factory=MelConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig(steps=20000))

    @property
    def is_series(self) -> bool:
        """True if the data are series of numbers instead of audio."""
        return self.output.kind == "regression"

    @property
    def rate_hz(self) -> int | None:
        """Samples per second of the audio that is modelled; None for series of numbers, which have no rate."""
        return None if self.is_series else self.audio.sample_rate_hz

    @property
    def frames(self) -> MelConfig | FeaturesConfig | None:
        """The section of the frames that the network is conditioned on, of one kind at most; None for no frames."""
        return next((section for section in (self.mel, self.features) if section.width), None)

    @property
    def quiet_weight(self) -> float:
        """Weight of quiet windows in the training; 1 with frames, which say themselves what is quiet."""
        return 1.0 if self.frames is not None else self.data.quiet_weight

    @property
    def temperature(self) -> float:
        """Temperature to sample at, if none is asked for: below 1 where quiet windows were seen less often."""
        return TEMPERATURE_OF_WEIGHTED if self.quiet_weight < 1 else 1.0

    @property
    def data_sources(self) -> list[str]:
        """Sources of the training data, or the name of synthetic series; empty where neither is given."""
        return self.data.sources if self.series.synthetic is None else [self.series.synthetic]

    @property
    def n_classes(self) -> int:
        """Levels of the network's input; 0 for series of numbers."""
        return 0 if self.is_series else self.quantization.classes

    @property
    def n_labels(self) -> int:
        """Number of the network's labels; 1 while they are not known."""
        if self.data.labels == "none":
            return 0
        return 1 if self.data.label_names == "auto" else len(self.data.label_names)
