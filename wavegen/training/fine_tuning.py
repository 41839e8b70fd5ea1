"""Fine-tuning: start from another network's averaged weights, as far as they fit.

Conditions may differ. A row of the labels' embedding belongs to a label by its name, and of the projection's columns
some belong to labels and some to frames: what both networks have is taken over, piece by piece. A new piece of the
projection is 0, so that the network starts as if the new conditions were not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.config import Config, differences
from wavegen.data.conditioning import build_conditioner, list_labels
from wavegen.errors import ModelError
from wavegen.model.building import condition_columns, fold_weight_norm, parameter_shapes, with_gains
from wavegen.runs.checkpoint import Arrays, Checkpoint
from wavegen.text import list_first

LABELS = "conditioning.labels"  # a row for each label
LONGEST_CHANGE = 100  # characters of a key that differs
PROJECTION = "conditioning.projection"  # columns for labels and for frames

# What another network may have been trained with although all its tensors fit.
SAME_SHAPES_OTHER_MEANING = (*("audio.sample_rate_hz", "quantization.", "model.input", "model.activation", "output."),)


def check_source(name: str, source: Checkpoint, config: Config, notice: Callable[[str], None]) -> None:
    """Check that a network can start from another one's averaged weights, and report the tensors that are not copied.

    Args:
        name: of the other one, for messages.
        source: the other one.
        config: of the new network, with its labels.
        notice: called with what was kept, what is new and what is not used.

    Raises:
        ModelError: it is of another kind, or a piece that both have is of another shape.
    """
    kind, other = config.model.kind, source.config.model.kind
    if kind != other:
        raise ModelError(f"{name}: expected a {kind} to start from, because of model.kind, found a {other}")
    own = _pieces({key: np.broadcast_to(0, shape) for key, shape in parameter_shapes(config).items()}, config)
    theirs = _pieces(_match_weight_norm(source, config), source.config)
    # a piece that only one of the two has is no misfit: it is new, or it is not used
    misfits = [
        f"'{piece}': expected the shape {own[piece].shape}, found {theirs[piece].shape}"
        for piece in own
        if piece in theirs and _each(piece, theirs[piece]) != _each(piece, own[piece])
    ]
    if misfits or not own.keys() & theirs.keys():
        what = list_first(misfits, 1, ", ") if misfits else "it has none of the tensors"
        remedy = "give the sections model, quantization, mel, features and output that it was trained with"
        raise ModelError(f"{name} does not fit this configuration: {what}; {remedy}")
    shared = [key for key in ("mel", "features") if getattr(source.config, key).width and getattr(config, key).width]
    meaning = (*SAME_SHAPES_OTHER_MEANING, *(f"{key}." for key in shared))
    if others := [line for line in differences(source.config, config) if line.startswith(meaning)]:
        # means and scales of features are long lists
        brief = [line if len(line) <= LONGEST_CHANGE else f"{line[: LONGEST_CHANGE - 3]}..." for line in others]
        notice(f"{name} was trained otherwise: {'; '.join(brief)}")
    _report_copied(name, own, theirs, notice)
    before, now = build_conditioner(source.config).labels, build_conditioner(config).labels
    if before and now and before != now:
        parts = {
            "kept": [label for label in now if label in before],
            "new": [label for label in now if label not in before],
            "left behind": [label for label in before if label not in now],
        }
        notice("labels: " + "; ".join(f"{list_labels(labels)} {what}" for what, labels in parts.items() if labels))


def weights_from(source: Checkpoint, own: Arrays, config: Config) -> Arrays:
    """Return a network's own first weights, with another one's averaged weights in place of the pieces that both have.

    Args:
        source: the other one, checked by ``check_source``.
        own: of the new network.
        config: of the new network.
    """
    pieces, theirs = _pieces(own, config), _pieces(_match_weight_norm(source, config), source.config)
    taken = {piece: theirs.get(piece, array) for piece, array in pieces.items()}
    if LABELS in pieces and LABELS in theirs:
        # (labels, C): a row belongs to a label by its name, wherever it stands in either table
        known = dict(zip(build_conditioner(source.config).labels, theirs[LABELS], strict=True))
        labels = zip(build_conditioner(config).labels, pieces[LABELS], strict=True)
        taken[LABELS] = np.stack([known.get(label, row) for label, row in labels])
    if PROJECTION in own:  # (L 2G, label channels + columns of a frame) again, the columns in the new network's order
        taken[PROJECTION] = np.concatenate([taken.pop(_columns(kind)) for kind in condition_columns(config)], axis=1)
    return taken


def _match_weight_norm(source: Checkpoint, config: Config) -> Arrays:
    """Return a network's averaged weights, as directions and gains where the new network has these."""
    # w = g v / |v| first, then v = w and g = |w|: the same function, in whichever of the two forms is wanted
    plain = fold_weight_norm(source.average)
    return with_gains(plain, parameter_shapes(config)) if config.model.weight_norm else plain


def _report_copied(name: str, own: Arrays, theirs: Arrays, notice: Callable[[str], None]) -> None:
    fresh, unused = sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())
    tensors, whole = ({_tensor(piece) for piece in own}, {_tensor(piece) for piece in own.keys() & theirs.keys()})
    whole -= {_tensor(piece) for piece in fresh}
    in_part = sorted(piece for piece in own.keys() & theirs.keys() if _tensor(piece) not in whole)
    lists = {"kept in part": in_part, "fresh": fresh, "not used": unused}
    notice(
        f"initialized {len(whole)} of {len(tensors)} tensors from {name}"
        + "".join(f"; {what}: {', '.join(pieces)}" for what, pieces in lists.items() if pieces)
    )


def _pieces(weights: Arrays, config: Config) -> Arrays:
    """Return weights by name, the projection cut into the columns of each kind of condition."""
    pieces = dict(weights)
    if PROJECTION in pieces:
        projection, first = pieces.pop(PROJECTION), 0
        for kind, width in condition_columns(config).items():
            pieces[_columns(kind)] = projection[:, first : first + width]
            first += width
    return pieces


def _columns(kind: str) -> str:
    return f"{PROJECTION} ({kind} columns)"


def _tensor(piece: str) -> str:
    """Return the name of the tensor that a piece belongs to."""
    return piece.partition(" (")[0]


def _each(piece: str, array: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return a piece's shape, or that of one label's row."""
    return array.shape[1:] if piece == LABELS else array.shape
