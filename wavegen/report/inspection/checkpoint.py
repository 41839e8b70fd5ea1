"""A checkpoint: how far its training is, how good it is, and what it heard."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from wavegen.audio.finding import printable
from wavegen.report.history import finite, validation_facts
from wavegen.report.inspection.config import network_facts, network_table, unit
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.tables import Table, facts, file_size, minutes
from wavegen.training.checkpoint import Checkpoint, load_checkpoint

SHOWN_LABELS = 10
THIS_MODEL = "this model"


def inspect_checkpoint(path: Path) -> Inspection:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: it is damaged, none of wavegen, or of another version.
    """
    checkpoint = load_checkpoint(path)
    n_bytes = path.stat().st_size
    state, data = training_state(checkpoint), data_facts(checkpoint)
    network = network_facts(checkpoint.config)
    values = {
        "kind": "checkpoint",
        "path": str(path),
        "file_bytes": n_bytes,
        "versions": checkpoint.versions,
        **state,
        "network": network,
        "data": data,
        "config": checkpoint.config.model_dump(),
    }
    summary = facts(
        printable(path),
        step=step_in_words(state["step"], state["total_steps"]),
        heard=f"{minutes(3600 * state['hours_heard'])} of audio",
        trained=minutes(60 * state["minutes_trained"]),
        **bits_in_words(state, unit(network)),
        skipped_steps=state["skipped_steps"] or None,
        written_by=", ".join(f"{name} {version}" for name, version in checkpoint.versions.items()),
        file_size=file_size(n_bytes),
    )
    tables = [summary, network_table(network), data_table(data)]
    if state["last_validation"]:
        tables.append(held_out_table(state["last_validation"], unit(network)))
    return Inspection("checkpoint", values, tables)


def training_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """How far the training is, and its held-out figures."""
    metrics, rate = checkpoint.metrics, checkpoint.config.audio.sample_rate_hz
    return {
        "step": checkpoint.step,
        "total_steps": checkpoint.config.training.steps,
        "hours_heard": metrics.get("targets", 0) / rate / 3600,
        "minutes_trained": metrics.get("seconds", 0.0) / 60,
        "skipped_steps": checkpoint.step - metrics.get("updates", checkpoint.step),
        "best_bits_per_sample": finite(metrics.get("best_bits")),
        "best_step": metrics.get("best_step"),
        "last_validation": validation_facts(metrics["validation"]) if metrics.get("validation") else None,
    }


def ranked_models(validation: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The model, as `THIS_MODEL`, among the trivial baselines on the same audio; the worst first."""
    everything = validation["all_bits_per_sample"]
    models = {
        **validation["baselines_bits_per_sample"],
        THIS_MODEL: validation["bits_per_sample"] if everything is None else everything,
    }
    return sorted(models.items(), key=lambda item: -math.inf if item[1] is None else -item[1])


def held_out_table(validation: dict[str, Any], unit: str) -> Table:
    """The model among the trivial baselines; the figures are in the unit."""
    seconds = validation["held_out_seconds"]
    audio = "" if seconds is None else f", {minutes(seconds)} of held-out audio"
    rows = [(name, bits_text(bits)) for name, bits in ranked_models(validation)]
    return Table(f"step {validation['step']:,}{audio}", ("model", unit), rows)


def bits_in_words(state: dict[str, Any], unit: str) -> dict[str, str]:
    """The last and the best held-out figure, by name; they are in the unit."""
    last, best = state["last_validation"], state["best_bits_per_sample"]
    if last is None:
        return {"held-out": "no validation yet"}
    everything = last["all_bits_per_sample"]
    beside = "" if everything is None else f" ({bits_text(everything)} on all held-out audio)"
    words = {"held-out": f"{bits_text(last['bits_per_sample'])} {unit} at step {last['step']:,}{beside}"}
    if best is not None:
        words["best"] = f"{bits_text(best)} {unit} at step {state['best_step']:,}"
    return words


def data_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the model was trained and validated on.

    Bits/sample compare between runs where the held-out clips, and so their hash, are the same.
    """
    rate, manifest = checkpoint.config.audio.sample_rate_hz, checkpoint.manifest
    held_out = sorted((clip["content_hash"], clip["n_samples"]) for clip in manifest if clip["split"] == "validation")
    parts = {split: [clip for clip in manifest if clip["split"] == split] for split in ("train", "validation")}
    return {
        "folder": checkpoint.config.data.folder,
        **{f"{split}_clips": len(clips) for split, clips in parts.items()},
        **{f"{split}_minutes": sum(clip["n_samples"] for clip in clips) / rate / 60 for split, clips in parts.items()},
        "held_out_hash": hashlib.sha256(repr(held_out).encode()).hexdigest()[:16] if held_out else None,
        "labels": sorted({clip["label"] for clip in manifest if clip.get("label") is not None}),
    }


def data_table(data: dict[str, Any]) -> Table:
    """What `data_facts` found."""
    labels = [printable(label) for label in data["labels"]]
    more = f", and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return facts(
        "data",
        folder=None if data["folder"] is None else printable(data["folder"]),
        trained_on=f"{data['train_clips']:,} clips, {minutes(60 * data['train_minutes'])}",
        held_out=f"{data['validation_clips']:,} clips, {minutes(60 * data['validation_minutes'])}",
        labels=f"{len(labels)}: {', '.join(labels[:SHOWN_LABELS])}{more}" if labels else None,
    )


def step_in_words(step: int, total: int | None) -> str:
    """How far a training is."""
    return f"{step:,}" if total is None else f"{step:,} of {total:,} ({step / total:.0%})"


def bits_text(bits: float | None) -> str:
    """Bits/sample with the digits that mean something."""
    return "-" if bits is None else f"{bits:.3f}"
