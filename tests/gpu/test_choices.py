"""Choices for a GPU, and errors where it cannot do something: no GPU is needed for either."""

import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import wavegen
from wavegen import bench
from wavegen.config import load_config
from wavegen.device import choose_device, on_device
from wavegen.errors import ParameterError, TrainingError, UsageError
from wavegen.model.outputs import Truncation
from wavegen.sampling import engines, sampler
from wavegen.sampling.engines import (
    GPU_STREAMS,
    EngineSource,
    build_engine,
    choose_engine,
    numba_fused,
    torch_engines,
)
from wavegen.sampling.engines.numba_fused import NumbaFusedEngine
from wavegen.sampling.sampler import SamplingOptions
from wavegen.training import plan
from wavegen.training.compute import Compute, check_precision, explain_device_errors, precisions_of
from wavegen.training.process_group import ALONE

CUDA, CPU, MPS = torch.device("cuda"), torch.device("cpu"), torch.device("mps")


# --- devices -----------------------------------------------------------------------------------------------------


def test_mps_is_a_device_where_torch_has_it(monkeypatch):
    with pytest.raises(ParameterError, match="this machine has no MPS device that torch can use; give device='cpu'"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == MPS
    assert choose_device("auto").type != "mps"  # which nobody has run
    with pytest.raises(ParameterError, match="expected auto, cpu, cuda, cuda:N or mps, found 'mps:0'"):
        choose_device("mps:0")


def test_the_current_device_is_that_of_the_tensors():
    assert on_device(torch.device("cuda", 1)).idx == 1
    with on_device(CPU):
        pass


def test_an_engine_captures_and_replays_on_its_own_device(random_model, monkeypatch):
    """A graph that is captured on the current device, when that is another, draws constant audio."""
    current, seen = [], []

    @contextmanager
    def record(device):
        current.append(device)
        yield
        current.pop()

    def captured(group, truncation):
        seen.append(list(current))
        return partial(group._advance, truncation)

    monkeypatch.setattr(torch_engines, "on_device", record)
    monkeypatch.setattr(torch_engines._Group, "_captured", captured)
    engine = torch_engines.TorchQueueEngine(random_model(), capture=True)
    engine.start(np.zeros((2, engine.receptive_field), np.int64))
    engine.generate(np.full((2, 3), 0.5), Truncation())
    assert seen == [[engine.device]]
    assert not current


# --- precisions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "known"),
    [((7, 5), ("float32", "float16")), ((8, 0), ("tf32", "bfloat16")), ((12, 0), ("tf32", "bfloat16"))],
)
def test_precisions_follow_the_card(monkeypatch, capability, known):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precisions_of(CUDA) == known
    for name in {*known, "float32", "float16"}:
        check_precision(name, CUDA)
    if capability < (8, 0):
        with pytest.raises(UsageError, match="precision: expected auto or float16 or float32 on this cuda, found bfl"):
            check_precision("bfloat16", CUDA)


@pytest.mark.parametrize(("device", "name"), [(CPU, "tf32"), (CPU, "float16"), (MPS, "bfloat16")])
def test_a_precision_that_a_device_lacks_is_refused(device, name):
    with pytest.raises(UsageError, match=rf"training\.precision: expected .* on this {device.type}, found {name}"):
        check_precision(name, device)


def test_lacks_of_a_device_are_one_line():
    memory = r"^trial step: out of memory on cuda; lower training\.batch_size"
    with pytest.raises(TrainingError, match=memory), explain_device_errors(CUDA, "trial step"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    operation = r"^step 1: mps lacks an operation \(The operator 'aten::x'.*device='cpu'$"
    with pytest.raises(TrainingError, match=operation), explain_device_errors(MPS, "step 1"):
        raise NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device")


# --- tuning ------------------------------------------------------------------------------------------------------


def tuned(monkeypatch, *keys, seconds, capability=(9, 0), free=1 << 40):
    """Tune on a pretended card whose steps take ``seconds(compute)``; return the choice, what was timed and said."""
    timed, said = [], []

    class Timed:
        def __init__(self, config, compute, device):
            self.n_targets, self.compute = compute.batch_size * config.training.window_targets, compute

        def step_seconds(self, precision, steps):
            assert precision == self.compute.precision
            timed.append((self.compute.backend, precision, self.n_targets))
            return seconds(self.compute, self.n_targets)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(plan, "Trial", Timed)
    monkeypatch.setattr(plan, "free_bytes", lambda _: free)
    config = load_config("small", keys)
    size = 8 if config.training.batch_size == "auto" else config.training.batch_size
    named = config.training.precision
    backend = "torch" if config.training.backend == "auto" else config.training.backend
    compute = Compute(backend, "float32" if named == "auto" else named, 1, size, 1, False)
    chosen, step_seconds = plan._tune(config, compute, ALONE, CUDA, said.append)
    n_targets = chosen.batch_size * config.training.window_targets
    assert step_seconds == (pytest.approx(seconds(chosen, n_targets)) if timed else None)
    return chosen, timed, said


def speeds(table):
    return lambda compute, n: n / table[compute.backend, compute.precision]


TABLE = {("torch", "tf32"): 2e6, ("torch", "bfloat16"): 1.5e6, ("compile", "tf32"): 4e6, ("compile", "bfloat16"): 6e6}


def test_backend_and_precision_are_chosen_together(monkeypatch):
    """In plain torch, where launches dominate, bfloat16 is the slower one; compiled it wins."""
    chosen, timed, said = tuned(monkeypatch, "training.steps=1000000", seconds=speeds(TABLE))
    assert (chosen.backend, chosen.precision, chosen.batch_size) == ("compile", "bfloat16", 8)
    assert {one[:2] for one in timed} == set(TABLE)
    assert {one[2] for one in timed} == {8 * 2048}  # of the real batch
    assert said[0].startswith("compile, bfloat16, 8 windows a step (targets/s: torch bfloat16 1,500,000, ")


def test_a_short_training_is_not_compiled(monkeypatch):
    chosen, timed, _ = tuned(monkeypatch, "training.minutes=3", seconds=speeds(TABLE))
    assert (chosen.backend, chosen.precision) == ("torch", "tf32")
    assert {backend for backend, *_ in timed} == {"torch"}


def test_what_is_named_is_taken(monkeypatch):
    keys = ("training.backend=torch", "training.precision=bfloat16")
    chosen, timed, said = tuned(monkeypatch, *keys, seconds=speeds(TABLE))
    assert (chosen.backend, chosen.precision) == ("torch", "bfloat16")
    assert timed == said == []


def test_a_card_without_bfloat16_takes_float16_where_that_is_faster(monkeypatch):
    for speed, precision in ((3e6, "float16"), (1.05e6, "float32")):
        table = {("torch", "float32"): 1e6, ("torch", "float16"): speed}
        keys = ("training.backend=torch",)
        chosen, _, said = tuned(monkeypatch, *keys, seconds=speeds(table), capability=(7, 5))
        assert chosen.precision == precision
        assert precision in said[0]


def test_an_automatic_batch_grows_while_that_makes_it_faster_and_fits(monkeypatch):
    def launches(compute, n):
        return 0.4e-3 + n / 60e6  # 16,384 targets take 0.7 ms, and twice as many 0.9 ms

    keys = ("training.batch_size=auto", "training.backend=torch", "training.precision=bfloat16")
    chosen, timed, _ = tuned(monkeypatch, *keys, seconds=launches)
    assert chosen.batch_size * 2048 == 65536
    assert [n for _, _, n in timed[:4]] == [16384, 32768, 65536, 131072]
    assert tuned(monkeypatch, *keys, seconds=launches, free=1 << 20)[0].batch_size == 8

    def too_large(compute, n):
        if n > 32768:
            raise TrainingError("out of memory")
        return launches(compute, n)

    assert tuned(monkeypatch, *keys, seconds=too_large)[0].batch_size == 16


def test_what_cannot_be_compiled_is_left_out(monkeypatch):
    def broken(compute, n):
        if compute.backend == "compile":
            raise TrainingError("no compiler")
        return speeds(TABLE)(compute, n)

    chosen, _, said = tuned(monkeypatch, "training.steps=1000000", seconds=broken)
    assert chosen.backend == "torch"
    assert said[0] == "backend: compile is left out (no compiler)"
    with pytest.raises(TrainingError, match="no compiler"):
        tuned(monkeypatch, "training.backend=compile", seconds=broken)


# --- sampling ----------------------------------------------------------------------------------------------------


def test_few_streams_are_sampled_on_the_cpu(engine_source):
    assert engine_source("cuda").device_for(GPU_STREAMS - 1) == "cpu"
    assert engine_source("cuda").device_for(GPU_STREAMS) == "cuda"
    assert engine_source("mps").device_for(10_000) == "cpu"  # which lacks float64
    assert engine_source("cuda", kind="stack").device_for(1) == "cuda"
    assert engine_source("cuda", output="regression").device_for(1) == "cuda"
    assert engine_source("cpu").device_for(10_000) == "cpu"


def test_an_audition_on_a_gpu_is_made_by_the_fused_engine(random_model):
    source = replace(EngineSource.of(random_model()), device_type="cuda")  # the weights lie there
    assert isinstance(build_engine("auto", source, n_streams=4), NumbaFusedEngine)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"device_type": "cpu"}, "it runs on a CUDA device, and the device is cpu"),
        ({"kind": "stack"}, "it runs gated WaveNets, and this model is a stack"),
        ({"activation": "relu"}, "it runs gated WaveNets, and this model is a relu"),
        ({"output": "logistic_mixture"}, "it has no draw for output.kind logistic_mixture"),
        ({"has_frames": True}, "it takes no frames"),
    ],
)
def test_the_triton_engine_is_refused_outside_its_range(engine_source, given, reason):
    with pytest.raises(ParameterError, match=f"^engine='triton': {reason}; give engine='auto'"):
        choose_engine("triton", engine_source(**{"device_type": "cuda", **given}))


def test_no_engine_samples_on_mps(engine_source):
    with pytest.raises(ParameterError, match="device='mps': no engine samples on it; give device='cpu'"):
        choose_engine("auto", engine_source("mps"))


def test_bench_measures_a_gpu(random_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(bench, "_generation_speed", lambda *_: 3.0)
    asked = []

    def measure(config, backend, precision, threads, recompute, device):
        asked.append((backend, precision, threads, recompute, device))
        return bench.Row("train", backend, precision, 8, threads, 5.0, 1.0, None, 6.0, 7, device)

    monkeypatch.setattr(bench, "measure_training", measure)
    model = random_model()
    there = SimpleNamespace(to=lambda device: model)
    monkeypatch.setattr(
        bench, "EngineSource", SimpleNamespace(of=lambda _: SimpleNamespace(beyond_triton=lambda: None))
    )
    rows = list(bench._gpu_rows(load_config("small"), SimpleNamespace(copy=lambda: there), CUDA, lambda _: None))
    assert {row.device for row in rows} == {"cuda"}
    assert {(row.engine, row.precision) for row in rows if row.work == "generate"} == {
        ("torch", "float32"),
        ("triton", "float32"),
        ("triton", "bfloat16"),
    }
    trained = {(row.engine, row.precision) for row in rows if row.work == "train"}
    assert len(trained) == 6
    assert {precision for _, precision in trained} == {"float32", "tf32", "bfloat16"}
    assert asked[0] == ("torch", "float32", 1, False, "cuda")
    assert rows[-1].peak_memory_bytes == 7


# --- `auto` on a GPU ---------------------------------------------------------------------------------------------


class TimedEngine:
    """An engine that takes some milliseconds for a chunk."""

    receptive_field = 5

    def __init__(self, milliseconds, outputs):
        self.seconds, self.outputs = milliseconds / 1e3, outputs

    def start(self, past, conditions=None):
        self.n_streams = len(past)

    def force(self, classes):
        return np.full((*classes.shape, 16), self.outputs, np.float32)

    def generate(self, numbers, truncation):
        time.sleep(self.seconds)


@pytest.mark.parametrize(
    ("torch_ms", "triton_ms", "outputs", "chosen"),
    [(5, 20, 1.0, "triton"), (5, 200, 1.0, "torch"), (5, 20, 1.2, "torch")],
    ids=["faster", "slower", "wrong"],
)
def test_auto_takes_triton_where_it_is_faster_and_right(
    random_model, monkeypatch, torch_ms, triton_ms, outputs, chosen
):
    """Of 320 streams the torch engine samples 32 at a time."""
    made = {"torch": TimedEngine(torch_ms, 1.0), "triton": TimedEngine(triton_ms, outputs)}
    monkeypatch.setattr(engines, "build_engine", lambda name, source, precision: made[name])
    model = random_model()
    source = replace(EngineSource.of(model), device_type="cuda", network=lambda _: model)
    assert engines.faster_on_gpu(source, "bfloat16", 320) == chosen
    assert made["torch"].n_streams == 32
    assert made["triton"].n_streams == 320
    assert engines.faster_on_gpu(replace(source, has_frames=True), "bfloat16", 320) == "torch"


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"count": 63}, "numba"),
        ({"count": 64}, "triton"),
        ({"count": 64, "engine": "numba"}, "numba"),
        ({"count": 64, "precision": "int8"}, "numba"),  # which it alone has
        ({"count": 64, "threads": 2}, "numba"),
        ({"count": 1, "engine": "torch"}, "torch"),
    ],
    ids=str,
)
def test_what_auto_takes_on_a_machine_with_a_gpu(monkeypatch, options, engine):
    for module in (engines, sampler):
        monkeypatch.setattr(module, "choose_device", lambda _: CUDA)
    monkeypatch.setattr(sampler, "faster_on_gpu", lambda *_: "triton")
    monkeypatch.setattr(numba_fused, "compile_kernel", lambda *_: None)
    taken = []
    monkeypatch.setattr(sampler, "build_engine", lambda name, source, *_: taken.append((name, source.device_type)))
    wavegen.load("voice").generator.prepare(0.1, SamplingOptions(**options))
    assert taken == [(engine, "cpu" if engine == "numba" else "cuda")]
