"""Several processes train as one: the same parameters, losses and figures; and how they fail together."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import COMMAND, has_ended, n_steps, wait_until
from trainings import assert_same_state, newest
from wavegen.errors import UsageError
from wavegen.training.distributed import Group
from wavegen.training.meeting import first_host, place_from
from wavegen.training.run_folder import RunFolder

# --- places, without any process ----------------------------------------------------------------------------------


def test_alone_unless_the_environment_says_otherwise():
    assert place_from({}) is None
    assert place_from({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None  # in a batch script, outside of srun


def test_torchruns_variables_are_read():
    environment = {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert place_from(environment) == (1, 3, "host", 29500, False, 0)
    again = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert place_from({**environment, **again}) == (1, 3, "host", 29500, True, 2)


def test_slurms_variables_are_read():
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_JOB_ID": "70007", "SLURM_STEP_ID": "2"}
    nodes = {"SLURM_STEP_NODELIST": "gpu[03-05,9],big1"}
    assert place_from({**step, **nodes}) == (5, 8, "gpu03", 30209, False, 0)
    assert place_from({**step, "MASTER_ADDR": "me", "MASTER_PORT": "7"}) == (5, 8, "me", 7, False, 0)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "expected 'MASTER_PORT' in the environment, found none"),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_PORT": "1"}, "invalid literal .* 'two'"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, problem):
    with pytest.raises(UsageError, match=problem):
        place_from(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("one", "one"), ("a1,b2", "a1"), ("n[7-9]", "n7"), ("n[007,9]-ib,m3", "n007-ib"), ("r1-n[12]", "r1-n12")],
)
def test_the_first_of_slurms_nodes(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 7, 64])
def test_shares_are_even_and_cover_all_in_order(n, size):
    shares = [Group(rank, size).share(n) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- processes ----------------------------------------------------------------------------------------------------

TINY = {
    "audio.sample_rate_hz": 4000,
    "mel.n_mels": 5,
    "mel.n_fft": 128,
    "mel.hop_length": 40,
    "mel.upsampling": 4,
    "model.cycles": 1,
    "model.dilation_cycle": 5,
    "model.residual_channels": 12,
    "model.gate_channels": 12,
    "model.skip_channels": 16,
    "model.head_channels": 16,
    "training.batch_size": 5,
    "training.window_targets": 200,
    "training.steps": 20,
    "training.threads": 1,
    "training.precision": "float32",
    "training.schedule": "constant",
    "training.validate_every": 10,
    "training.audition_every": 0,
    "training.timeout_seconds": 30,
}

# What each of them runs: exactly as `launch.start` begins a training, but in the given arithmetic.
WORKER = """
import json, sys
import numpy as np, torch
from pathlib import Path
from wavegen.config import load_config
from wavegen.data.reading import build_quantizer, read_corpus
from wavegen.model.building import build_model
from wavegen.training.meeting import joined
from wavegen.training.run_folder import RunFolder
from wavegen.training.trainer import Trainer

overrides, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with joined("cpu") as group:
    for backend, dtype in (("torch", torch.float64), ("fused", torch.float32)):
        config = load_config("small", [*overrides, f"training.backend={backend}", f"data.folder={folder}"])
        config = config.with_values("training", accumulation=2)
        torch.manual_seed(0)
        model = build_model(config).to(dtype)
        corpus, run = read_corpus(config), RunFolder(out / backend)
        if group.speaks:
            run.create(config.to_yaml())
        trainer = Trainer(config, corpus, model, build_quantizer(config), run, [], group)
        trainer.fit()
        if group.speaks:
            np.savez(out / f"{backend}.npz", **{n: p.detach().numpy() for n, p in model.named_parameters()})
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(5)
    seconds = np.arange(2000) / 4000
    for i in range(12):
        clip = 0.5 * np.sin(2 * np.pi * 210 * seconds + i) + 0.01 * rng.standard_normal(len(seconds))
        soundfile.write(folder / f"clip{i}.wav", clip[: 2000 - 100 * i], 4000)
    return folder


def overrides(**changes):
    return [f"{key}={value}" for key, value in {**TINY, **changes}.items()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(n, *arguments):
    """Run Python with the same arguments as n processes that meet."""
    meeting = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            env={**os.environ, **meeting, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


@pytest.fixture(scope="module")
def trained_by(recordings, tmp_path_factory):
    """The same training, by so many processes; each is made once."""
    made = {}

    def train(n):
        if n not in made:
            made[n] = tmp_path_factory.mktemp(f"by{n}")
            for done in together(n, "-c", WORKER, json.dumps(overrides()), str(recordings), str(made[n])):
                assert done.returncode == 0, done.stderr
                assert "Warning" not in done.stderr, "PyTorch's own go past Python's filters"
        return made[n]

    return train


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("backend", "largest"), [("torch", 1e-9), ("fused", 1e-5)])
def test_several_processes_give_the_parameters_of_one(trained_by, n, backend, largest):
    """A batch of 5 windows: it divides by neither number."""
    one, several = (np.load(trained_by(count) / f"{backend}.npz") for count in (1, n))
    for name in one.files:
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=largest, err_msg=name)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_losses_and_validation_figures_are_those_of_one(trained_by, n, backend):
    one, several = (list(RunFolder(trained_by(count) / backend).metrics()) for count in (1, n))
    for key in ("train_bits", "validation_bits", "held_out_bits"):
        figures = [[entry[key] for entry in entries if key in entry] for entries in (one, several)]
        assert figures[0], key
        np.testing.assert_allclose(figures[1], figures[0], rtol=0, atol=1e-5, err_msg=key)


RESUMER = """
import json, sys
from pathlib import Path
from wavegen.config import load_config, override
from wavegen.training import launch
from wavegen.training.meeting import joined
from wavegen.training.run_folder import RunFolder

overrides, folder, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
config = load_config("small", [*overrides, f"data.folder={folder}"])
nothing = lambda text: None
with joined("cpu") as group:
    for name, steps in (("whole", 12), ("stopped", 6)):
        wanted = config.with_values("training", steps=steps)
        launch.new_run(wanted, RunFolder(out / name), group, [], nothing).fit()
    longer = lambda frozen: override(frozen, ["training.steps=12"])
    launch.resume(RunFolder(out / "stopped"), longer, False, group, [], nothing).fit()
"""


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_several_processes_resume_bit_exactly(recordings, tmp_path, backend):
    settings = overrides(**{"training.backend": backend, "training.accumulation": 1})
    for done in together(3, "-c", RESUMER, json.dumps(settings), str(recordings), str(tmp_path)):
        assert done.returncode == 0, done.stderr
    assert newest(tmp_path / "whole").step == 12
    assert_same_state(newest(tmp_path / "whole"), newest(tmp_path / "stopped"))


def test_a_processes_failure_is_everyones_and_is_told_once():
    script = """
from wavegen.errors import DataError, WavegenError
from wavegen.training.meeting import joined
def work():
    if group.rank == 1:
        raise DataError("this machine has no recordings")
    return group.rank
with joined("cpu") as group:
    try:
        group.attempt(work)
    except WavegenError as error:
        print(type(error).__name__, error.exit_code, error)
    print(group.attempt(lambda: "well"), group.from_first(group.rank), group.largest(group.rank))
    print(group.first_on_each_machine(lambda: group.local_rank))
    try:
        group.check_same("recordings", "a" if group.rank < 2 else "b")
    except WavegenError as error:
        print(type(error).__name__, error)
"""
    said = [done.stdout.splitlines() for done in together(3, "-c", script)]
    assert [lines[0] for lines in said] == [
        "ElsewhereError 1 ",
        "DataError 1 this machine has no recordings",
        "ElsewhereError 1 ",
    ]
    assert [lines[1:3] for lines in said] == [["well 0 2", str(rank)] for rank in range(3)]
    host = socket.gethostname()
    assert said[0][3] == f"UsageError rank 2 on {host} has other recordings than rank 0 on {host}"


# --- the command line ---------------------------------------------------------------------------------------------


LONG = {"training.steps": 100_000, "training.checkpoint_every": 10}


def children(process):
    """Linux's list of a process's children, oldest first: rank 0, rank 1."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def newest_step(run):
    return newest(run).step


@pytest.fixture
def start(recordings, tmp_path):
    """Start an endless training on two processes, and wait until it has made 15 steps."""
    started = []

    def begin(run, launcher, *more, **changes):
        settings = [part for one in overrides(**{**LONG, **changes}) for part in ("--set", one)]
        call = [*launcher, "train", str(recordings), "--run-folder", str(run), *more, *settings]
        process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
        started.append(process)
        wait_until(lambda: n_steps(run) >= 15 or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            for pid in children(process):
                os.kill(pid, signal.SIGKILL)
            process.kill()
        process.wait()
        process.stderr.close()


def test_a_killed_process_ends_the_job_with_a_good_checkpoint_and_another_number_goes_on(start, tmp_path):
    run = tmp_path / "run"
    process = start(run, COMMAND, "--devices", "2")
    os.kill(children(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGKILL
    assert "error: process 1 of 0 to 1 was killed by SIGKILL; go on with --resume" in said
    assert said.count("another process of this training is gone") == 1
    step = newest_step(run)
    assert step == n_steps(run) >= 15
    call = [*COMMAND, "train", "--run", str(run), "--resume", "--steps", str(step + 5), "--devices", "3"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 3 processes now" in done.stderr
    assert newest_step(run) == n_steps(run) == step + 5


def test_a_process_that_does_not_answer_ends_the_job_within_the_timeout(start, tmp_path):
    run = tmp_path / "run"
    process = start(run, COMMAND, "--devices", "2", **{"training.timeout_seconds": 10})  # a busy machine may need 2
    stuck = children(process)[1]
    os.kill(stuck, signal.SIGSTOP)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "does not answer: Timed out waiting 10000ms" in said
    assert newest_step(run) == n_steps(run)
    assert has_ended(stuck), "nothing is left behind"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopping_several_processes_saves(start, tmp_path, number, exit_code):
    run = tmp_path / "run"
    process = start(run, COMMAND, "--devices", "2")
    process.send_signal(number)
    _, said = process.communicate(timeout=TINY["training.timeout_seconds"] - 5)  # neither waits for the other in vain
    assert process.returncode == exit_code
    assert f"wavegen train --run {run} --resume" in said
    assert newest_step(run) == n_steps(run) >= 15


def test_a_signal_saves_and_goes_on(start, tmp_path):
    run = tmp_path / "run"
    process = start(run, COMMAND, "--devices", "2", **{"training.checkpoint_every": 100_000})
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: newest_step(run) >= 15)
    saved, reached = newest_step(run), n_steps(run)
    wait_until(lambda: n_steps(run) > reached)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143
    assert f"asked to save: saved at step {saved}\n" in said


def test_processes_end_with_the_one_that_started_them(start, tmp_path):
    process = start(tmp_path / "run", COMMAND, "--devices", "2")
    left = children(process)
    process.kill()
    process.wait()
    wait_until(lambda: all(map(has_ended, left)))


def test_torchrun_starts_again_where_the_training_was(start, tmp_path):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    process = start(run, [*torchrun, "-m", "wavegen"])
    before = children(process)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, before)))
    reached = n_steps(run)
    wait_until(lambda: n_steps(run) > reached)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert "resumed at step" in said
    steps = [entry["step"] for entry in RunFolder(run).metrics() if "train_bits" in entry]
    assert steps == list(range(1, len(steps) + 1))
