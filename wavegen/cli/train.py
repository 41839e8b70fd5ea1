"""`wavegen train`."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from wavegen.cli import console
from wavegen.cli.console import Device, Overrides, option
from wavegen.errors import UsageError
from wavegen.report import print_tables

if TYPE_CHECKING:
    from wavegen.config import Config
    from wavegen.runs.run_folder import RunFolder
    from wavegen.sampling.verdict import Verdict
    from wavegen.training.trainer import Trainer


SOURCES_HELP = "Recordings, or series of numbers (.npy, .csv): folders, files, or a text that lists them."
CONFIG_HELP = "Preset, or YAML file.  [default: small, or music for long notes]"
RUN_HELP = "Run folder.  [default: runs/NAME OF DIR]"
CHANGES_HELP = "Resume even if the configuration or the recordings have changed."
DEVICES_HELP = "Number of training processes on this machine; each takes one GPU, or a share of the CPU cores."


def train(
    sources: Annotated[list[str] | None, typer.Argument(metavar="DIR|FILE", help=SOURCES_HELP)] = None,
    config: Annotated[str | None, option("Configuration", CONFIG_HELP, "--config")] = None,
    overrides: Overrides = None,
    # under torchrun --run is ambiguous: argparse takes it for the start of one of torchrun's options
    run: Annotated[str | None, option("Run", RUN_HELP, "--run", "--run-folder", metavar="DIR")] = None,
    steps: Annotated[int | None, option("Training", "Total number of optimizer steps; sets training.steps.")] = None,
    minutes: Annotated[float | None, option("Training", "Minutes to train; with --resume, further minutes.")] = None,
    seed: Annotated[
        int | None, option("Training", "Random seed of weights and training windows; sets training.seed.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, option("Run", "Resume the run from its newest checkpoint.", "--resume")] = False,
    accept_changes: Annotated[bool, option("Run", CHANGES_HELP, "--accept-changes")] = False,
    plan: Annotated[bool, option("Run", "Print the plan of a new run, with its time and memory, and stop.")] = False,
    init_from: Annotated[str | None, option("Run", "Run or checkpoint to start from.", metavar="CHECKPOINT")] = None,
    devices: Annotated[int | None, option("Machine", DEVICES_HELP, min=1, max=1024)] = None,
) -> None:
    """Train a model on a folder of recordings.

    wavegen train my_recordings/ ; wavegen train my_recordings/ --minutes 30 --set model.residual_channels=64 ;
    wavegen train my_recordings/ --plan ; wavegen train --run runs/my_recordings --resume
    """
    from wavegen.config import load_for_long_events
    from wavegen.data.sources import compact_sources
    from wavegen.training import launch

    if plan and resume:
        raise UsageError("--plan: the plan of a new run; leave --resume out")
    if devices is not None and devices > 1 and sys.platform == "win32":
        raise UsageError("--devices: not on Windows, which cannot pass signals on; leave it out, or use torchrun")
    if devices is not None and devices > 1 and launch.PARENT_KEY not in os.environ:
        if launch.rank_from_environment(os.environ) is not None:
            raise UsageError("--devices: torchrun or SLURM has started several processes already; leave it out")
        command = [sys.executable, "-P", "-m", "wavegen", *sys.argv[1:]]  # this one again
        raise typer.Exit(launch.run_processes(devices, command, console.print_error))
    from wavegen.runs.run_folder import RunFolder
    from wavegen.training.process_group import process_group
    from wavegen.training.start import resume_run, start_run

    numbers = {"steps": steps, "minutes": minutes, "seed": seed}
    given = [*(overrides or []), *(f"training.{key}={value}" for key, value in numbers.items() if value is not None)]
    if sources:
        paths = compact_sources(sources)
        given.append(f"data.folder={json.dumps(paths if len(paths) > 1 else paths[0])}")
    with process_group(device) as group:
        notice, progress = (console.print_notice, console.data_progress()) if group.is_main else (lambda _: None, None)
        run_folder = group.on_main(lambda: _run_folder(run, config, given, resume, init_from))
        again = group.is_restart(run_folder)
        if resume or again:
            requested = (lambda frozen: frozen) if again else partial(_requested, config, given)
            trainer = resume_run(run_folder, requested, accept_changes, group, notice, progress)
        else:
            settings = group.on_main(lambda: console.load_settings(config, given))
            source = None if init_from is None else Path(init_from)
            for_long_events = load_for_long_events(given) if config is None and source is None else None
            start = partial(
                start_run,
                settings,
                group=group,
                notice=notice,
                progress=progress,
                init_from=source,
                for_long_events=for_long_events,
            )
            if plan:
                with TemporaryDirectory() as scratch:
                    trainer = start(run=RunFolder(Path(scratch) / "run"))
                _print_plan(trainer, run_folder, sys.stdout)
                group.on_main(lambda: _print_whether_taken(run_folder))
                return
            trainer = start(run=run_folder)
        _train(trainer, run_folder)


def _print_plan(trainer: Trainer, run_folder: RunFolder, file: TextIO) -> None:
    from wavegen.report.training import plan_tables

    if trainer.group.is_main:
        of_trainer = (trainer.plan, trainer.corpus, trainer.device)
        print_tables(plan_tables(*of_trainer, run_folder.path, trainer.group.size), file)


def _print_whether_taken(run: RunFolder) -> None:
    """Print a notice if a training would refuse this run folder."""
    try:
        run.check_new()
    except UsageError as error:
        console.print_notice(error.worded(console.as_option))


def _train(trainer: Trainer, run_folder: RunFolder) -> None:
    """Train; the main process of several prints how it goes."""
    from wavegen.cli.progress import TrainingDisplay
    from wavegen.data.conditioning import build_conditioner
    from wavegen.report.training import run_observers, trouble_tables
    from wavegen.training.process_group import ProcessDied
    from wavegen.training.progress import Interrupted
    from wavegen.training.task import MOST_AUDITIONED

    display = None
    if trainer.progress.step == 0:
        _print_plan(trainer, run_folder, sys.stderr)
    elif trainer.group.is_main:
        print_tables(trouble_tables(trainer.corpus), sys.stderr)
    if trainer.group.is_main:
        conditioner = build_conditioner(trainer.config)
        labels = conditioner.labels[:MOST_AUDITIONED] if conditioner.frames is None else ()
        display = TrainingDisplay(trainer.plan.steps, trainer.progress, trainer.task.loss_unit.full_name, labels)
        trainer.observers = [display, *run_observers(run_folder.path)]
    try:
        trainer.fit()
    except (Interrupted, ProcessDied) as stop:
        if display is not None:
            display.close()
            if isinstance(stop, ProcessDied):
                console.print_error(str(stop))
            console.print_warning(f"stopped at step {trainer.progress.step:,}; checkpoint saved. Resume with:")
            console.print_warning(f"  {console.resume_command(run_folder.path)}")
        raise typer.Exit(stop.exit_code) from None
    finally:
        if display is not None:
            display.close()
    if display is not None:
        _print_next_steps(trainer, run_folder.path, display.audition)


def _print_next_steps(trainer: Trainer, run: Path, audition: Verdict | None) -> None:
    """Print what is wrong with the model, or else with its last audition, and what to type next."""
    from wavegen.api import load
    from wavegen.data.conditioning import build_conditioner
    from wavegen.sampling.verdict import in_words

    if trainer.config.rate_hz is None:
        console.print_notice(f"done: {run}. Forecast with:\n  {console.forecast_command(run)}")
        return
    conditioner = build_conditioner(trainer.config)
    progress, faults = trainer.progress, [] if audition is None else audition.faults()
    warning = load(str(run)).undertrained_warning()  # as `generate` prints it, of the same checkpoint
    if warning:
        console.print_notice(warning)
    elif audition is not None and len(conditioner.labels) < 2:  # one of several labels is like none of them
        good = "as loud, as silent and as bright as the recordings" if audition.is_whole else "too short to judge"
        console.print_notice(f"last audition: {in_words(faults) or good}")
    if not warning and faults and progress.best_step is not None and progress.best_step < progress.step:
        best = f"held-out audio was best at step {progress.best_step:,}"
        console.print_notice(f"{best}: record more; longer training does not help")
    elif warning or faults:
        console.print_notice(f"Train longer with:\n  {console.train_longer_command(run)}")
    frames = None if conditioner.frames is None else conditioner.frames.name
    command = console.generate_command(run, conditioner.labels, frames, trainer.corpus)
    console.print_notice(f"done: {run}. Generate audio with:\n  {command}")


def _requested(config: str | None, overrides: list[str], frozen: Config) -> Config:
    """Return the configuration to resume a run with, which has frozen one."""
    from wavegen.config import load_config, override

    if config is None:
        return override(frozen, overrides)
    given = load_config(config, overrides)
    if given.training.minutes is None or any(text.startswith("training.minutes=") for text in overrides):
        return given
    # the file's minutes are those of the whole training; the run has turned them into steps
    return given.with_values("training", minutes=None, steps=given.training.steps or frozen.training.steps)


def _run_folder(
    run: str | None, config: str | None, overrides: list[str], resume: bool, init_from: str | None
) -> RunFolder:
    """Return the run folder from --run, or the default one for the data."""
    from wavegen.runs.run_folder import RunFolder, run_of

    if resume and init_from is not None:
        raise UsageError("--init-from starts a new run and --resume continues one; give one of them")
    if run is not None:
        return RunFolder(Path(run))
    sources = console.load_settings(config, overrides).data_sources
    if not sources:
        raise UsageError("expected a folder of recordings (wavegen train DIR) or a run (--run DIR), found neither")
    return run_of(sources)
