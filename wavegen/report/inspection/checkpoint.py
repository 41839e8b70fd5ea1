"""A checkpoint: how far its training is, how good it is, and what it heard."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from wavegen.audio.levels import RecordingProfile
from wavegen.data.conditioning import list_labels
from wavegen.evaluation.measure import Measure, measure_in, measure_of
from wavegen.report.inspection.config import network_facts, network_table
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.tables import Table, facts, file_size, heard_in_words, minutes
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint
from wavegen.runs.history import finite, validation_facts
from wavegen.text import printable

THIS_MODEL = "this model"


def inspect_checkpoint(path: Path) -> Inspection:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: it is damaged, none of wavegen, or of another version.
    """
    checkpoint = load_checkpoint(path)
    n_bytes = path.stat().st_size
    state, data = training_state(checkpoint), data_facts(checkpoint)
    network, measure = network_facts(checkpoint.config), measure_of(checkpoint.config)
    values = {
        "kind": "checkpoint",
        "path": str(path),
        "file_bytes": n_bytes,
        "for_use_only": checkpoint.is_for_use_only,
        "versions": checkpoint.versions,
        **state,
        "network": network,
        "data": data,
        "config": checkpoint.config.model_dump(),
    }
    summary = facts(
        printable(path),
        holds="averaged weights alone, for use" if checkpoint.is_for_use_only else None,
        step=step_in_words(state["step"], state["total_steps"]),
        heard=heard_in_words(measure, state[measure.heard]),
        trained=minutes(60 * state["minutes_trained"]),
        **figures_in_words(state, measure),
        skipped_steps=state["skipped_steps"] or None,
        recordings=_recordings(checkpoint.metrics.get("recordings")),
        written_by=", ".join(f"{name} {version}" for name, version in checkpoint.versions.items()),
        file_size=file_size(n_bytes),
    )
    tables = [summary, network_table(network), *([data_table(data)] if checkpoint.manifest else [])]
    if state["last_validation"]:
        tables.append(held_out_table(state["last_validation"], measure))
    return Inspection("checkpoint", values, tables)


def _recordings(stored: dict[str, Any] | None) -> str | None:
    """Describe the training's prepared recordings in a line."""
    if stored is None:
        return None
    profile = RecordingProfile.from_dict(stored)
    shortest, middle, longest = map(minutes, profile.clip_seconds)
    return (
        f"{profile.whole.loud_db:.0f} dB where loud, {100 * profile.whole.silent_share:.0f}% silent, spectral centroid "
        f"{profile.whole.centroid_hz:,.0f} Hz, clips of {shortest} to {longest}, median {middle}"
    )


def training_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """How far the training is, and its held-out figures."""
    metrics, measure = checkpoint.metrics, measure_of(checkpoint.config)
    heard = metrics.get("targets", 0)
    return {
        "step": checkpoint.step,
        "total_steps": checkpoint.config.training.steps,
        measure.heard: heard / checkpoint.config.audio.sample_rate_hz / 3600 if measure.is_bits else heard,
        "minutes_trained": metrics.get("seconds", 0.0) / 60,
        "skipped_steps": checkpoint.step - metrics.get("updates", checkpoint.step),
        f"best_{measure.fact}": finite(metrics.get("best_loss")),
        "best_step": metrics.get("best_step"),
        "last_validation": validation_facts(metrics["validation"]) if metrics.get("validation") else None,
    }


def ranked_models(validation: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The model, as `THIS_MODEL`, among the trivial baselines on the same audio; the worst first."""
    fact = measure_in(validation).fact
    everything = validation[f"all_{fact}"]
    models = {
        **validation[f"baselines_{fact}"],
        THIS_MODEL: validation[fact] if everything is None else everything,
    }
    return sorted(models.items(), key=lambda item: -math.inf if item[1] is None else -item[1])


def held_out_table(validation: dict[str, Any], measure: Measure) -> Table:
    """The model among the trivial baselines."""
    rows = [(name, measure.text(figure)) for name, figure in ranked_models(validation)]
    title = f"step {validation['step']:,}, {measure.unit}{held_out_in_words(validation)}"
    return Table(title, ("model", measure.unit), rows)


LEAST_SECONDS = 30.0  # of held-out audio: the figure of less changes more from clip to clip than from model to model


def too_little(seconds: float | None) -> str:
    """Return what to say of a figure on so much held-out audio; nothing where it is enough."""
    if seconds is None or seconds >= LEAST_SECONDS:
        return ""
    return f"less than {LEAST_SECONDS:.0f} s of audio: nothing follows from this figure"


def held_out_in_words(validation: dict[str, Any]) -> str:
    """Name the audio that a validation has scored, to follow a figure."""
    if validation.get("held_out_points") is not None:
        return f" on {validation['held_out_points']:,} points of held-out series"
    seconds, everything = validation.get("held_out_seconds"), validation.get("all_held_out_seconds")
    if seconds is None:
        return ""
    if everything is None or everything - seconds < 0.05:
        return f" on {minutes(seconds)} of held-out audio"
    return f" on {minutes(seconds)} of the {minutes(everything)} held out"


def figures_in_words(state: dict[str, Any], measure: Measure) -> dict[str, str]:
    """The last and the best held-out figure, by name."""
    last, best = state["last_validation"], state[f"best_{measure.fact}"]
    if last is None:
        return {"held-out": "no validation yet"}
    everything = last[f"all_{measure.fact}"]
    beside = "" if everything is None else f" ({measure.text(everything)} on all held-out {measure.material})"
    unit = f"{measure.unit}{held_out_in_words(last)}"
    words = {"held-out": f"{measure.text(last[measure.fact])} {unit} at step {last['step']:,}{beside}"}
    if best is not None:
        words["best"] = f"{measure.text(best)} {measure.unit} at step {state['best_step']:,}"
    return words


def data_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the model was trained and validated on.

    Bits/sample compare between runs where the held-out clips, and so their hash, are the same.
    """
    config, manifest = checkpoint.config, checkpoint.manifest
    name, unit = ("{}_points", 1) if config.is_series else ("{}_minutes", 60 * config.audio.sample_rate_hz)
    held_out = sorted((clip["content_hash"], clip["n_samples"]) for clip in manifest if clip["split"] == "validation")
    parts = {split: [clip for clip in manifest if clip["split"] == split] for split in ("train", "validation")}
    return {
        "folder": config.data_source,
        **{f"{split}_clips": len(clips) for split, clips in parts.items()},
        **{name.format(split): sum(clip["n_samples"] for clip in clips) / unit for split, clips in parts.items()},
        "held_out_hash": hashlib.sha256(repr(held_out).encode()).hexdigest()[:16] if held_out else None,
        "labels": sorted({clip["label"] for clip in manifest if clip.get("label") is not None}),
    }


def data_table(data: dict[str, Any]) -> Table:
    """What `data_facts` found."""
    labels = data["labels"]

    def length(split: str) -> str:
        points = data.get(f"{split}_points")
        if points is None:
            return f"{data[f'{split}_clips']:,} clips, {minutes(60 * data[f'{split}_minutes'])}"
        return f"{data[f'{split}_clips']:,} series, {points:,.0f} points"

    return facts(
        "data",
        folder=None if data["folder"] is None else printable(data["folder"]),
        trained_on=length("train"),
        held_out=length("validation"),
        labels=f"{len(labels)}: {list_labels(labels)}" if labels else None,
    )


def step_in_words(step: int, total: int | None) -> str:
    """How far a training is."""
    return f"{step:,}" if total is None else f"{step:,} of {total:,} ({step / total:.0%})"
