"""One self-contained checkpoint file: safetensors, atomic, hashed, versioned; no pickle anywhere.

    weights/NAME    the trained weights            moment1/NAME, moment2/NAME   the optimizer's state
    average/NAME    their running average (EMA), the ones that everything but training uses

The metadata hold one JSON document: format version, wavegen's and torch's versions, step, configuration, manifest of
clips, labels, metrics, and a sha256 over all of it and the tensors.

A file that is for use alone (``wavegen.runs.checkpoint``) has the average only, perhaps in bfloat16. NumPy has no such
type: here its numbers are ``BFLOAT16``, and widened when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from wavegen import __version__
from wavegen.config import Config, parse_frozen
from wavegen.errors import CheckpointError, ConfigError, ParameterError, UsageError
from wavegen.model.building import check_weights, current_name, fold_weight_norm, parameter_shapes
from wavegen.output_file import write_atomically
from wavegen.text import printable

FORMAT_VERSION = 1
LARGEST_CONFIG = 1 << 20  # characters; a thousand labels of 255 are a quarter of it
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # the upper half of a float32

Arrays = dict[str, npt.NDArray[Any]]

# Names in ``metrics.jsonl`` and checkpoints of older versions; losses had those of their units.
_OLD_LOSS = re.compile("(train|validation|held_out)_(bits|squared_error|absolute_error)")
_LOSS_UNITS = {"bits": "bits/sample", "squared_error": "squared error", "absolute_error": "absolute error"}
_RENAMED = {"best_bits": "best_loss", "hours_heard": "hours_of_audio", "points_heard": "points_seen"}

EXPORT_PRECISIONS = ("float32", "bfloat16")


def with_current_keys(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of ``metrics.jsonl``, or the metrics of a checkpoint, under today's keys."""
    current: dict[str, Any] = {}
    for key, value in metrics.items():
        if match := _OLD_LOSS.fullmatch(key):
            current |= {f"{match[1]}_loss": value, "loss_unit": _LOSS_UNITS[match[2]]}
        else:
            is_entry = key == "validation" and isinstance(value, dict)
            current[_RENAMED.get(key, key)] = with_current_keys(value) if is_entry else value
    return current


@dataclass
class Checkpoint:
    """A training's whole state.

    Args:
        config: complete and frozen; nothing in it is ``auto``.
        step: optimizer steps made.
        weights: the trained weights by parameter name; empty in files that are for use only.
        average: the averaged weights, by the same names.
        moments: the optimizer's two moments by name; empty in files that are for use only.
        manifest: the corpus's clips (name, length, hash, split, label).
        metrics: last and best validation, samples trained on, seconds trained, skipped steps.
        versions: of wavegen and its main packages, when the file was written.
    """

    config: Config
    step: int
    weights: Arrays
    average: Arrays
    moments: tuple[Arrays, Arrays] = field(default_factory=lambda: ({}, {}))
    manifest: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_for_use_only(self) -> bool:
        """True if training cannot be resumed from it."""
        return not self.weights


class _Document(BaseModel):
    """The schema of the metadata."""

    step: int = Field(ge=0)
    config: str = Field(max_length=LARGEST_CONFIG)
    manifest: list[dict[str, Any]]
    metrics: dict[str, Any]
    versions: dict[str, str]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: a temporary file in the same folder, fsync, rename.

    A kill leaves the old file or the new one.

    Raises:
        CheckpointError: the file cannot be written; what was there before stays.
    """
    moment1, moment2 = checkpoint.moments
    groups = {"weights": checkpoint.weights, "average": checkpoint.average, "moment1": moment1, "moment2": moment2}
    tensors = {
        f"{group}/{name}": np.ascontiguousarray(array)
        for group, arrays in groups.items()
        for name, array in arrays.items()
    }
    document = {
        "format_version": FORMAT_VERSION,
        "versions": {**checkpoint.versions, "wavegen": __version__},
        "step": checkpoint.step,
        "config": checkpoint.config.to_yaml(),
        "labels": names if isinstance(names := checkpoint.config.data.label_names, list) else [],
        "manifest": checkpoint.manifest,
        "metrics": checkpoint.metrics,
    }
    text = json.dumps(document)
    # the hash covers the metadata and every tensor: a flipped bit anywhere is found at loading
    content = _serialized(tensors, {"wavegen": text, "sha256": _content_hash(text, tensors)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}; free some space") from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Needs no torch, and runs nothing that the file holds.

    Raises:
        CheckpointError: the file is missing, not a checkpoint, damaged, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint, found {found}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "wavegen" not in metadata:
                raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of wavegen")
            names = list(file.keys())
            narrow = [name for name in names if file.get_slice(name).get_dtype() == "BF16"]
            tensors = _with_bfloat16(path, narrow) if narrow else {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path}: expected a safetensors file, found other bytes: {reason}") from None
    text = metadata["wavegen"]
    if metadata.get("sha256") != _content_hash(text, tensors):
        raise CheckpointError(f"{path}: damaged: its content does not match its hash; use another checkpoint")
    return _parse(path, text, {name: widened(array) for name, array in tensors.items()})


def widened(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert numbers of ``BFLOAT16`` to float32; others stay."""
    return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32) if array.dtype == BFLOAT16 else array


def _parse(path: Path, text: str, tensors: Arrays) -> Checkpoint:
    try:
        document = json.loads(text)
        version, writer = document["format_version"], document["versions"].get("wavegen", "?")
        if version != FORMAT_VERSION:
            found = f"{_word(version)} (written by wavegen {_word(writer)}); use a matching wavegen"
            raise CheckpointError(f"{path}: expected checkpoint format {FORMAT_VERSION}, found {found}")
        document = _Document.model_validate(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: its metadata are not what a checkpoint has; use another checkpoint") from None
    try:
        config = parse_frozen(document.config, f"{path}: config")
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration is not valid: {error.problems[0]}") from None
    groups: dict[str, Arrays] = {"weights": {}, "average": {}, "moment1": {}, "moment2": {}}
    for key, array in tensors.items():
        group, _, name = key.partition("/")
        if group in ("weights", "average") and array.dtype.kind != "f":
            raise CheckpointError(f"{path}: expected floating-point numbers, found {array.dtype} in {_word(key)}")
        groups.setdefault(group, {})[current_name(name)] = array
    return Checkpoint(
        config=config,
        step=document.step,
        weights=groups["weights"],
        average=groups["average"],
        moments=(groups["moment1"], groups["moment2"]),
        manifest=document.manifest,
        metrics=with_current_keys(document.metrics),
        versions=document.versions,
    )


def _word(text: object) -> str:
    """Return text from a file safe for a terminal: short, control characters escaped."""
    return repr(str(text)[:60])[1:-1]


def _serialized(tensors: Arrays, metadata: dict[str, str]) -> bytes:
    """Return the bytes of a safetensors file."""
    from safetensors.numpy import save

    # safetensors' writer for NumPy knows no bfloat16: write 16-bit integers, then correct the header
    narrow = [name for name, array in tensors.items() if array.dtype == BFLOAT16]
    content = save({**tensors, **{name: tensors[name].view("<u2") for name in narrow}}, metadata)
    return _renamed(content, narrow, "BF16") if narrow else content


def _with_bfloat16(path: Path, narrow: list[str]) -> Arrays:
    """Return the tensors of a file of which some are bfloat16, a type that safetensors' reader for NumPy refuses."""
    from safetensors.numpy import load

    tensors: Arrays = load(_renamed(path.read_bytes(), narrow, "U16"))
    return {**tensors, **{name: tensors[name].view(BFLOAT16) for name in narrow}}


def _renamed(content: bytes, names: list[str], dtype: str) -> bytes:
    """Return a safetensors file whose header calls some tensors' type by another name, of the same width."""
    # a file is: 8 bytes with the header's length, the header in JSON padded to 8 bytes, the tensors' bytes
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    for name in names:
        header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[begin:]


def _content_hash(text: str, tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --- export --------------------------------------------------------------------------------------------------------


def goes_to_onnx(path: Path, precision: str) -> bool:
    """Return whether a file's name means an ONNX step, and not a checkpoint.

    Raises:
        UsageError: it means neither, or the precision is not available for it.
    """
    if path.suffix not in (".safetensors", ".onnx"):
        raise UsageError(f"{printable(path)}: expected a name that ends in .safetensors or .onnx")
    _check_precision(precision)
    if path.suffix == ".onnx" and precision != "float32":
        raise ParameterError("precision", "an ONNX step has float32 only; leave it out", precision)
    return path.suffix == ".onnx"


def for_use(checkpoint: Checkpoint, precision: str = "float32") -> Checkpoint:
    """Reduce a checkpoint to the parts that ``generate``, ``evaluate``, ``inspect`` and ``--init-from`` need.

    Weight normalization is folded into plain weights. The manifest of clips is left out, and with it the paths of the
    folder and of a list of held-out clips.

    Args:
        checkpoint: of a training.
        precision: of the matrices: float32, or bfloat16, to half the size. Vectors, such as biases, stay as they are.

    Raises:
        UsageError: there is no such precision.
        ModelError: the weights do not fit the configuration, or are not finite.
    """
    _check_precision(precision)
    check_weights(checkpoint.average, parameter_shapes(checkpoint.config))
    checkpoint = fold_checkpoint(checkpoint)
    average = dict(checkpoint.average)
    if precision == "bfloat16":
        average = {name: _narrowed(array) if array.ndim > 1 else array for name, array in average.items()}
    config = checkpoint.config.with_values("data", folder=None)
    if isinstance(config.data.validation, str):
        config = config.with_values("data", validation=Config().data.validation)
    return replace(checkpoint, config=config, weights={}, average=average, moments=({}, {}), manifest=[])


def fold_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """Fold weight normalization into plain averaged weights, without torch.

    Checkpoints of a training keep what it trains, to be resumed exactly; all that uses a model has plain weights.
    """
    if not checkpoint.config.model.weight_norm:
        return checkpoint
    config = checkpoint.config.with_values("model", weight_norm=False)
    return replace(checkpoint, config=config, average=fold_weight_norm(checkpoint.average))


def _check_precision(precision: str) -> None:
    if precision not in EXPORT_PRECISIONS:
        raise ParameterError("precision", f"expected one of {', '.join(EXPORT_PRECISIONS)}, found '{precision}'")


def _narrowed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from wavegen.sampling.engines.packing import round_to_bfloat16

    return round_to_bfloat16(array.astype(np.float32)).view(BFLOAT16)
