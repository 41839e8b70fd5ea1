"""Decisions from shapes and memory: slices, batches that fit, and an estimate near what is measured."""

import numpy as np
import pytest
import torch

from wavegen.bench import measure_training
from wavegen.config import load_config
from wavegen.errors import UsageError
from wavegen.training import compute as module
from wavegen.training.compute import resolve_compute, training_bytes

CPU = torch.device("cpu")


def resolved(*overrides, device=CPU):
    return resolve_compute(load_config("small", [f"training.{one}" for one in overrides]), device)


@pytest.mark.parametrize(
    ("threads", "batch", "window", "slices"),
    [
        (1, 8, 2048, 1),
        (2, 8, 2048, 2),
        (3, 8, 2048, 4),  # of equal size
        (16, 8, 2048, 8),
        (2, 4, 16000, 4),  # none larger than SLICE_ROWS
        (2, 1, 2048, 1),
        (1, 7, 40000, 7),
    ],
)
def test_slices_are_equal_and_one_for_each_thread(threads, batch, window, slices):
    compute = resolved(f"threads={threads}", f"batch_size={batch}", f"window_targets={window}")
    assert compute.accumulation == slices


def test_more_slices_than_windows_are_windows():
    assert resolved("batch_size=4", "accumulation=9").accumulation == 4


def test_the_torch_backend_takes_a_batch_whole():
    assert resolved("backend=torch", "threads=2").accumulation == 1
    assert resolved(device=torch.device("cuda")).backend == "torch"


def test_the_fused_backend_is_refused_on_a_gpu():
    with pytest.raises(UsageError, match=r"fused runs on a CPU, not on cuda; choose auto"):
        resolved("backend=fused", device=torch.device("cuda"))


def test_a_configuration_that_holds_a_resolution_resolves_to_it():
    config = load_config("small", ["training.batch_size=auto", "training.threads=auto"])
    compute = resolve_compute(config, CPU)
    assert "auto" not in compute.settings().values()
    assert resolve_compute(config.with_values("training", **compute.settings()), CPU) == compute


@pytest.mark.parametrize(
    ("free", "window", "size"), [(1 << 40, 2048, 8), (1 << 40, 1000, 16), (1 << 40, 100_000, 1), (400_000_000, 2048, 1)]
)
def test_an_automatic_batch_fits(monkeypatch, free, window, size):
    monkeypatch.setattr(module, "free_bytes", lambda _: free)
    assert resolved("batch_size=auto", f"window_targets={window}").batch_size == size


def test_memory_that_is_free_is_known():
    assert 1 << 20 < module.free_bytes(CPU) < 1 << 50


def test_a_container_has_the_memory_that_its_limit_leaves(tmp_path):
    """A container of 4 GB in a part of 6 GB of the machine."""
    limits = {"box/memory.max": "4000000000", "memory.max": "6000000000", "box/in/memory.max": "max"}
    for name, limit in limits.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
        file.with_name("memory.current").write_text("3000000000\n")
        file.with_name("memory.stat").write_text("anon 2500000000\ninactive_file 500000000\n")
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/other\n0::/box/in\n")
    assert list(module.group_bytes(tmp_path / "cgroup", own)) == [1_500_000_000, 3_500_000_000]


def test_the_estimate_follows_what_the_blocks_keep():
    """Of a batch of 1 in float32: rows of all blocks times what each keeps less or more."""
    sizes = ["training.batch_size=1", "training.threads=1", "training.accumulation=1", "training.backend=torch"]

    def estimated(backend, *overrides):
        config = load_config("small", [*sizes, f"training.backend={backend}", *overrides])
        return training_bytes(config, resolve_compute(config, CPU))

    config = load_config("small", sizes)
    rows = sum(2048 + 1022 - reach for reach in np.cumsum(config.model.dilations).tolist())
    gated, dropped = estimated("torch"), estimated("torch", "model.dropout=0.1")
    relu = estimated("torch", "model.activation=relu")
    n_halved = 18 * 2 * 32 * 32 + 18 * 32  # weights of the gates, their biases
    assert gated - relu == pytest.approx(1.15 * (rows * 2 * 4 * 32 + 5 * 4 * n_halved), rel=1e-3)
    assert dropped - gated == pytest.approx(1.15 * rows * 32, rel=1e-3)  # a byte for each z
    fused = estimated("fused") - estimated("fused", "model.activation=relu")
    assert fused == pytest.approx(rows * 4 * 32 + (5 + 2) * 4 * n_halved, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("windows", "targets"), [(4, 2000), (8, 6000)])
@pytest.mark.parametrize(
    ("precision", "recompute"), [("float32", False), ("bfloat16", True), ("float32", True), ("bfloat16", False)]
)
def test_the_estimate_is_near_the_measured_peak(precision, recompute, windows, targets):
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("without bfloat16 instructions products go another way, which takes less memory and far more time")
    batch = [f"training.batch_size={windows}", f"training.window_targets={targets}"]
    config = load_config("small", [*batch, "training.threads=2"])
    measured = measure_training(config, "fused", precision, 2, recompute)
    changes = {"precision": precision, "activation_checkpointing": recompute}
    config = config.with_values("training", **changes)
    estimated = training_bytes(config, resolve_compute(config, CPU))
    assert measured.peak_memory_bytes is not None
    assert estimated == pytest.approx(measured.peak_memory_bytes, rel=0.25)
