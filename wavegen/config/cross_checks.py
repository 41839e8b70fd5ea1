"""Cross checks: keys of a configuration that conflict although each is right by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import get_args

from wavegen.config.schema import KEYS_OF_KINDS, RECURRENT, AudioConfig, OutputKind, Sections, foreign_keys
from wavegen.config.yaml_source import KeyPath, YamlSource, show

MOST_RANKED_CLASSES = 4096  # of a softmax or an embedding; with more, some are too rare in recordings to learn
EARLIER_TRIM_DB = 50.0  # the default in some older files, of series too, which are never trimmed

Problems = Iterator[tuple[KeyPath, str]]


def conflicting_keys(source: YamlSource) -> Problems:
    """Yield the conflicts within a document whose keys are valid each by itself."""
    section = source.value(("model",))
    kind = section.get("kind", "wavenet") if isinstance(section, dict) else None
    if isinstance(kind, str) and kind in KEYS_OF_KINDS:
        for key in foreign_keys(kind) & section.keys():
            others = ", ".join(name for name, keys in KEYS_OF_KINDS.items() if key in keys)
            yield ("model", key), f"this is no key of model.kind {kind}, but of {others}; remove it"
    for repeated in source.repeated:
        yield repeated, "this key was already given; remove one"
    names = source.value(("data", "label_names"))
    if isinstance(names, list) and (twice := sorted({str(name) for name in names if names.count(name) > 1})):
        yield ("data", "label_names"), f"expected each name once, found {', '.join(map(repr, twice))} again"


def check_consistency(config: Sections) -> Problems:
    """Yield the keys that conflict with others, each with its problem."""
    yield from _class_conflicts(config)
    yield from _mel_conflicts(config)
    yield from _feature_conflicts(config)
    yield from _kind_conflicts(config)
    yield from _backend_conflicts(config)
    yield from _series_conflicts(config)


def _mel_conflicts(config: Sections) -> Problems:
    """Yield conflicts among the keys of spectrograms, and with the sample rate."""
    mel, rate = config.mel, config.audio.sample_rate_hz
    if mel.n_mels is None:
        return
    if mel.hop_length % mel.upsampling:
        yield ("mel", "upsampling"), f"expected a divisor of mel.hop_length {mel.hop_length}, found {mel.upsampling}"
    if mel.hop_length > mel.n_fft:
        yield ("mel", "hop_length"), f"expected at most mel.n_fft, {mel.n_fft}, found {mel.hop_length}"
    if (mel.n_fft - mel.hop_length) % 2:
        expected = f"an even number more than mel.hop_length, {mel.hop_length}"
        yield ("mel", "n_fft"), f"expected {expected}, so that frames have a middle, found {mel.n_fft}"
    if mel.f_max is not None and mel.f_max > rate / 2:
        yield ("mel", "f_max"), f"expected half of audio.sample_rate_hz, {rate / 2:g}, or less, found {mel.f_max}"
    highest = rate / 2 if mel.f_max is None else mel.f_max
    if mel.f_min >= highest:
        yield ("mel", "f_min"), f"expected less than the highest frequency, {highest:g}, found {mel.f_min}"


def _feature_conflicts(config: Sections) -> Problems:
    """Yield conflicts among the keys of features, and with spectrograms."""
    features = config.features
    if features.columns is None:
        return
    if config.mel.n_mels is not None:
        why = "a model has frames of one kind; put the bands into the feature files"
        yield ("features", "columns"), f"expected null with mel.n_mels {config.mel.n_mels}: {why}"
    for key, values in (("mean", features.mean), ("scale", features.scale)):
        if isinstance(values, list) and isinstance(features.columns, int) and len(values) != features.columns:
            yield ("features", key), f"expected a number for each of {features.columns} columns, found {len(values)}"


def _series_conflicts(config: Sections) -> Problems:
    """Yield conflicts of keys with series of numbers, or with audio."""
    data, series, audio = config.data, config.series, config.audio
    if not config.is_series:
        if series.synthetic is not None:
            why = "expected null: synthetic series need output.kind: regression"
            found = f"'{series.synthetic}' with output.kind: {config.output.kind}"
            yield ("series", "synthetic"), f"{why}, found {found}"
        return
    if config.model.input != "scalar":
        yield ("model", "input"), f"expected scalar with output.kind regression, found '{config.model.input}'"
    usual = AudioConfig()  # its defaults are for sound, and series are not prepared
    if audio.trim_db not in (None, usual.trim_db, EARLIER_TRIM_DB):
        yield ("audio", "trim_db"), f"expected null with output.kind regression, found {audio.trim_db}; remove it"
    if audio.level not in ("keep", usual.level):
        yield ("audio", "level"), f"expected keep with output.kind regression, found '{audio.level}'; remove it"
    yield from _conditions(config, "with output.kind regression", "; remove it")
    if series.synthetic is not None and data.folder is not None:
        found = f"'{series.synthetic}' and {data.sources[0]}; leave out one"
        yield ("series", "synthetic"), f"expected null with a folder of data, found {found}"
    horizon = config.output.horizon
    if series.synthetic is not None and series.points <= horizon:
        yield ("series", "points"), f"expected more than output.horizon, {horizon}, found {series.points}"
    if series.windows == "anywhere" and (series.positions == "last" or config.model.positions.step > 1):
        why = "series.positions last" if series.positions == "last" else "strides"
        yield ("series", "windows"), f"expected aligned with {why}, found 'anywhere'"
    if config.training.window_targets <= (first := config.model.positions.start):
        yield ("training", "window_targets"), f"expected more than {first}, of which strides forecast none"


def _conditions(config: Sections, why: str, remedy: str = "") -> Problems:
    """Yield a problem for each condition that a model which takes none is given."""
    keys: dict[KeyPath, tuple[object, str]] = {
        ("data", "labels"): (config.data.labels, "none"),
        ("mel", "n_mels"): (config.mel.n_mels, "null"),
        ("features", "columns"): (config.features.columns, "null"),
    }
    for key, (value, expected) in keys.items():
        if value not in (None, "none"):
            yield key, f"expected {expected} {why}, found {show(value)}{remedy}"


def _backend_conflicts(config: Sections) -> Problems:
    """Yield the conflict of the fused backend with a network that it does not compute."""
    reasons = {
        "output.kind regression": config.is_series,
        f"model.kind {config.model.kind}": config.model.kind != "wavenet",
        f"model.dropout {config.model.dropout:g}": config.model.dropout > 0,
    }
    why = next((key for key, is_conflict in reasons.items() if is_conflict), None)
    if config.training.backend == "fused" and why is not None:
        yield ("training", "backend"), f"expected auto, torch or compile with {why}, found 'fused'"


def _kind_conflicts(config: Sections) -> Problems:
    """Yield conflicts of keys with the kind of model."""
    kind = config.model.kind
    if kind == "wavenet":
        return
    yield from _conditions(config, f"with model.kind {kind}, which takes no conditions")
    if config.training.activation_checkpointing:
        yield ("training", "activation_checkpointing"), f"expected false with model.kind {kind}, found true"
    if kind == "stack":
        yield from islice(_layer_problems(config), 1)  # the others may follow from it


def _layer_problems(config: Sections) -> Problems:
    """Yield the problems of a stack's layers; what is behind the first one counts on it being solved."""
    model = config.model
    if not model.layers:
        yield ("model", "layers"), "expected one layer or more with model.kind stack, found none; see dense-skips"
    entry = {"embedding": model.embedding_channels, "one_hot": config.quantization.classes, "scalar": 1}
    known = {"input": entry[model.input]}
    width = known["input"]
    for i, layer in enumerate(model.layers):
        where = ("model", "layers", str(i))
        if "channels" in layer.own_keys and layer.channels is None:
            yield (*where, "channels"), f"expected a whole number, as {layer.kind} needs, found none"
        if "source" in layer.own_keys and layer.source not in known:
            found = "none" if layer.source is None else f"'{layer.source}'"
            yield (*where, "source"), f"expected the name of a layer below ({', '.join(known)}), found {found}"
        if useless := [key for key in layer.model_dump() if key not in layer.own_keys]:
            yield (*where, useless[0]), f"{layer.kind} has no such key; remove it"
        if layer.stride > 1 and not config.is_series:
            found = f"{layer.stride}: sound is generated sample by sample"
            yield (*where, "stride"), f"expected 1, found {found}; write it as dilations, see dense-skips"
        if layer.stride > (span := (layer.kernel_size - 1) * layer.dilation + 1):
            yield (*where, "stride"), f"expected at most {span}, which the taps span, found {layer.stride}"
        source = known.get(layer.source or "", width)
        if layer.kind == "add" and source != width:
            expected = f"expected a layer of {width} channels, as the layer below has, found '{layer.source}'"
            yield (*where, "source"), f"{expected} of {source}; concatenate joins layers of different width"
        width = layer.width(width, source)
        if layer.name is not None:
            if layer.name in known:
                yield (*where, "name"), f"expected another name than those below, found '{layer.name}' again"
            known[layer.name] = width
    if "context" in model.model_fields_set and not model.has_memory:
        yield ("model", "context"), f"expected a layer of kind {', '.join(RECURRENT)} with it, found none; remove it"
    if model.positions.step > 1 and any(each.source is not None for each in model.layers):
        yield ("model", "layers"), "expected no concatenate or add with strides, whose layers differ in length"
    if model.positions.step > 1 and model.has_memory and model.context > 1:
        yield ("model", "context"), f"expected 1 with strides, found {model.context}"
    if not model.output_layer and not (config.is_series and width == config.output.horizon):
        expected = f"a layer of output.horizon, {config.output.horizon}, channels at the top and output.kind regression"
        yield ("model", "output_layer"), f"false: expected {expected}, found {width} and {config.output.kind}"


def _class_conflicts(config: Sections) -> Problems:
    """Yield conflicts of keys with the number of classes."""
    classes = config.n_classes
    if classes <= MOST_RANKED_CLASSES:
        return
    if config.output.kind == "softmax":
        others = " or ".join(kind for kind in get_args(OutputKind) if kind.endswith("_mixture"))
        expected = f"expected {MOST_RANKED_CLASSES} at most with output.kind softmax, found {classes}"
        yield ("quantization", "classes"), f"{expected}; for more classes set output.kind to {others}"
    if config.quantization.kind == "mu_law":
        why = "whose steps near silence would be finer than recordings are"
        yield ("quantization", "kind"), f"expected linear with {classes} classes, found 'mu_law', {why}"
    if config.model.input != "scalar":
        yield ("model", "input"), f"expected scalar with {classes} classes, found '{config.model.input}'"
