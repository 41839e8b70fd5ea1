"""Several processes train as one: the same parameters, losses and figures; and how they fail together."""

import json
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch.distributed import TCPStore

from command_line import COMMAND, Process, has_ended, n_steps, run_interpreter, wait_until
from trainings import assert_same_state, newest
from wavegen.errors import UsageError
from wavegen.runs.run_folder import RunFolder
from wavegen.training.launch import main_address, rank_from_environment
from wavegen.training.process_group import Group

# --- places, without any process ----------------------------------------------------------------------------------


def test_one_process_unless_the_environment_names_more():
    assert rank_from_environment({}) is None
    in_a_batch_script = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}  # outside of srun
    assert rank_from_environment(in_a_batch_script) is None


def test_torchruns_variables_are_read():
    environment = {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert rank_from_environment(environment) == (1, 3, "host", 29500, False, 0)
    again = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert rank_from_environment({**environment, **again}) == (1, 3, "host", 29500, True, 2)


def test_slurms_variables_are_read():
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_JOB_ID": "70007", "SLURM_STEP_ID": "2"}
    nodes = {"SLURM_STEP_NODELIST": "gpu[03-05,9],big1"}
    assert rank_from_environment({**step, **nodes}) == (5, 8, "gpu03", 30209, False, 0)
    assert rank_from_environment({**step, "MASTER_ADDR": "me", "MASTER_PORT": "7"}) == (5, 8, "me", 7, False, 0)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "expected 'MASTER_PORT' in the environment, found none"),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_PORT": "1"}, "invalid literal .* 'two'"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, problem):
    with pytest.raises(UsageError, match=problem):
        rank_from_environment(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("one", "one"), ("a1,b2", "a1"), ("n[7-9]", "n7"), ("n[007,9]-ib,m3", "n007-ib"), ("r1-n[12]", "r1-n12")],
)
def test_the_first_of_slurms_nodes(nodes, first):
    assert main_address(nodes) == first


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
    "training.steps": 10,
    "training.threads": 1,
    "training.precision": "float32",
    "training.schedule": "constant",
    "training.validate_every": 5,
    "training.audition_every": 0,
    "training.timeout_seconds": 30,
}


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


def place(rank, size, port):
    """The environment by which torchrun gives a process its rank."""
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def together(n, program, *arguments):
    """Run a program as n processes that meet, to its end; what each of them has written."""
    with ExitStack() as running:
        port = free_port()
        processes = [
            running.enter_context(Process(*arguments, program=program, **place(rank, n, port))) for rank in range(n)
        ]
        codes = [process.wait() for process in processes]
        words = [process.words() for process in processes]
    assert codes == [0] * n, words
    assert not any("Warning" in stderr for _, stderr in words), "PyTorch's own go past Python's filters"
    return [stdout for stdout, _ in words]


@pytest.fixture(scope="module")
def trained_by(recordings, tmp_path_factory):
    """The same training by a number of processes; each is run once."""
    made = {}

    def train(n):
        if n not in made:
            made[n] = tmp_path_factory.mktemp(f"by{n}")
            together(n, "train_in_two_arithmetics.py", json.dumps(overrides()), recordings, made[n])
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
    for key in ("train_loss", "validation_loss"):
        figures = [[entry[key] for entry in entries if key in entry] for entries in (one, several)]
        assert figures[0], key
        np.testing.assert_allclose(figures[1], figures[0], rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_several_processes_resume_bit_exactly(recordings, tmp_path, backend):
    keys = {"training.backend": backend, "training.accumulation": 1, "training.warmup_steps": 0}  # at either length
    settings = overrides(**keys)
    together(3, "train_whole_and_in_parts.py", json.dumps(settings), recordings, tmp_path)
    assert newest(tmp_path / "whole").step == 12
    assert_same_state(newest(tmp_path / "whole"), newest(tmp_path / "stopped"))


def test_a_failure_on_one_rank_ends_all_and_is_reported_once():
    said = [stdout.splitlines() for stdout in together(3, "fail_on_rank_1.py")]
    assert [lines[0] for lines in said] == [
        "RemoteError 1 ",
        "DataError 1 this machine has no recordings",
        "RemoteError 1 ",
    ]
    assert [lines[1:3] for lines in said] == [["well 0 [2, 0]", str(rank)] for rank in range(3)]
    host = socket.gethostname()
    assert [lines[3] for lines in said[1:]] == ["RemoteError "] * 2
    assert said[0][3] == f"UsageError rank 2 on {host} has other recordings than rank 0 on {host}"


# --- the command line ---------------------------------------------------------------------------------------------


LONG = {"training.steps": 100_000, "training.checkpoint_every": 10}


def children(process):
    """Linux's list of a process's children, oldest first: rank 0, rank 1."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def newest_step(run):
    return newest(run).step


def run_forks(*arguments, **how):
    """Run wavegen, whose ``--devices`` starts forks: in milliseconds, but otherwise as it starts interpreters."""
    return Process(*arguments, program="launch_forks.py", **how)


def run_interpreters(*arguments, **how):
    return Process(*COMMAND, *arguments, program="replace_process.py", **how)


@pytest.fixture(params=[run_forks, pytest.param(run_interpreters, marks=pytest.mark.slow)])
def launch(request):
    return request.param


@pytest.fixture
def start(recordings, tmp_path):
    """Start a training on two processes that is far from its end, and wait until it has made 15 steps."""
    with ExitStack() as started:

        def begin(launch, run, *more, **changes):
            settings = [part for one in overrides(**{**LONG, **changes}) for part in ("--set", one)]
            process = launch("train", recordings, "--run-folder", run, *more, *settings, cwd=tmp_path)
            started.enter_context(process)
            started.callback(kill_all, process)
            wait_until(lambda: n_steps(run) >= 15 or process.poll() is not None)
            assert process.poll() is None, process.words()
            return process

        yield begin


def kill_all(process):
    """Kill a launcher that a failed test has left, and its ranks."""
    if process.poll() is None:
        for pid in children(process):
            os.kill(pid, signal.SIGKILL)
        process.kill()


@pytest.mark.slow
def test_devices_starts_an_interpreter_for_each_process(recordings, tmp_path):
    run = tmp_path / "run"
    settings = [part for one in overrides(**{"training.steps": 3}) for part in ("--set", one)]
    done = run_interpreter(COMMAND, "train", recordings, "--run", run, "--devices", 2, *settings)
    assert done.stderr.count("done: ") == 1, "only rank 0 speaks"
    assert newest(run).metrics["processes"] == 2
    assert newest_step(run) == n_steps(run) == 3


def test_a_killed_process_ends_the_job_with_a_good_checkpoint_and_another_number_resumes(start, launch, tmp_path):
    run = tmp_path / "run"
    process = start(launch, run, "--devices", "2")
    os.kill(children(process)[1], signal.SIGKILL)
    assert process.wait() == 128 + signal.SIGKILL
    _, said = process.words()
    assert "error: process 1 of 0 to 1 was killed by SIGKILL; continue with --resume" in said
    # process 0 notices it in its next exchange, or is told to stop by the launcher before
    assert said.count("another process of this training died") == 1 or "\nstopped\n" in said, said
    step = newest_step(run)
    assert step == n_steps(run) >= 15
    with launch("train", "--run", run, "--resume", "--steps", step + 5, "--devices", "3") as resumed:
        assert resumed.wait() == 0, resumed.words()
        assert "on 3 processes now" in resumed.words()[1]
    assert newest_step(run) == n_steps(run) == step + 5


def test_a_process_that_does_not_answer_ends_the_job_within_the_timeout(start, launch, tmp_path):
    run, seconds = tmp_path / "run", 10 if launch is run_interpreters else 5  # a busy machine may need 2
    process = start(launch, run, "--devices", "2", **{"training.timeout_seconds": seconds})
    stuck = children(process)[1]
    os.kill(stuck, signal.SIGSTOP)
    assert process.wait() == 1
    assert f"does not respond: Timed out waiting {seconds}000ms" in process.words()[1]
    assert newest_step(run) == n_steps(run)
    assert has_ended(stuck), "nothing is left behind"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopping_several_processes_saves(start, launch, tmp_path, number, exit_code):
    run = tmp_path / "run"
    process = start(launch, run, "--devices", "2")
    process.send_signal(number)
    # neither waits for the other in vain
    assert process.wait(timeout=TINY["training.timeout_seconds"] - 5) == exit_code
    assert f"wavegen train --run {run} --resume" in process.words()[1]
    assert newest_step(run) == n_steps(run) >= 15


def test_a_signal_saves_and_training_continues(start, launch, tmp_path):
    run = tmp_path / "run"
    process = start(launch, run, "--devices", "2", **{"training.checkpoint_every": 100_000})
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: newest_step(run) >= 15)
    saved, reached = newest_step(run), n_steps(run)
    wait_until(lambda: n_steps(run) > reached)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert f"asked to save: saved at step {saved}\n" in process.words()[1]


def test_processes_end_with_the_one_that_started_them(start, launch, tmp_path):
    process = start(launch, tmp_path / "run", "--devices", "2")
    left = children(process)
    process.kill()
    process.wait()
    wait_until(lambda: all(map(has_ended, left)))


def assert_goes_on(run, said):
    """It has been resumed, and every step was made once."""
    assert "resumed at step" in said
    steps = [entry["step"] for entry in RunFolder(run).metrics() if "train_loss" in entry]
    assert steps == list(range(1, len(steps) + 1))


def test_started_again_as_by_torchrun_it_is_where_the_training_was(recordings, tmp_path):
    """This test in the place of torchrun: it has the store in which processes meet, and starts all again."""
    run = tmp_path / "run"
    settings = [part for one in overrides(**LONG) for part in ("--set", one)]
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True"}

    def start_all(running, attempt):
        environments = [place(rank, 2, store.port) | agent for rank in range(2)]
        return [
            running.enter_context(
                Process("train", recordings, "--run", run, *settings, TORCHELASTIC_RESTART_COUNT=str(attempt), **one)
            )
            for one in environments
        ]

    with ExitStack() as running:
        first, second = start_all(running, 0)
        wait_until(lambda: n_steps(run) >= 15 or first.poll() is not None)
        second.kill()
        assert first.wait() == 1, first.words()
        reached = n_steps(run)
        first, second = start_all(running, 1)
        wait_until(lambda: n_steps(run) > reached or first.poll() is not None)
        for process in (first, second):
            process.send_signal(signal.SIGTERM)
        assert first.wait() == second.wait() == 143, first.words()
        assert_goes_on(run, first.words()[1])


@pytest.mark.slow
def test_torchrun_starts_again_where_the_training_was(start, tmp_path):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    process = start(
        lambda *arguments, **how: Process(*torchrun, "-m", "wavegen", *arguments, program="replace_process.py", **how),
        run,
    )
    before = children(process)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, before)))
    reached = n_steps(run)
    wait_until(lambda: n_steps(run) > reached)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert_goes_on(run, process.words()[1])
