"""`wavegen train`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wavegen.cli.console import data_progress, ignore_text, print_error, print_notice, print_tables
from wavegen.cli.options import MACHINE, RUN, TRAINING, Device, Overrides, load_settings
from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.config import Config
    from wavegen.runs.run_folder import RunFolder
    from wavegen.training.trainer import Trainer


def train(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Folder of recordings, or of series of numbers (.npy, .csv).")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Preset, or YAML file.  [default: small]", rich_help_panel=TRAINING)
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        str | None,  # under torchrun --run is ambiguous: argparse takes it for the start of one of torchrun's options
        typer.Option(
            "--run", "--run-folder", metavar="DIR", help="Run folder.  [default: runs/NAME OF DIR]", rich_help_panel=RUN
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Total number of optimizer steps; sets training.steps.", rich_help_panel=TRAINING)
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Minutes to train; with --resume, further minutes.", rich_help_panel=TRAINING),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Random seed of weights and training windows; sets training.seed.", rich_help_panel=TRAINING),
    ] = None,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run from its newest checkpoint.", rich_help_panel=RUN)
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Resume even if the configuration or the recordings have changed.",
            rich_help_panel=RUN,
        ),
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Run or checkpoint to fine-tune from.", rich_help_panel=RUN),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Number of training processes on this machine; each takes one GPU, or a share of the CPU cores.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
) -> None:
    """Train a model on a folder of recordings.

    wavegen train my_recordings/ ; wavegen train my_recordings/ --minutes 30 --set model.residual_channels=64 ;
    wavegen train --run runs/my_recordings --resume
    """
    from wavegen.training.process_group import (
        PARENT_KEY,
        own_command,
        process_group,
        rank_from_environment,
        run_processes,
    )

    if devices is not None and devices > 1 and PARENT_KEY not in os.environ:
        if rank_from_environment(os.environ) is not None:
            raise UsageError("--devices: torchrun or SLURM has started several processes already; leave it out")
        raise typer.Exit(run_processes(devices, own_command(), print_error))
    from wavegen.training.start import resume_run, start_run

    given = list(overrides or [])
    for key, value in {"steps": steps, "minutes": minutes, "seed": seed}.items():
        if value is not None:
            given.append(f"training.{key}={value}")
    if folder is not None:
        given.append(f"data.folder={json.dumps(str(Path(folder).absolute()))}")
    with process_group(device) as group:
        notice, progress = (print_notice, data_progress()) if group.is_main else (ignore_text, None)
        run_folder = group.on_main(lambda: _run_folder(folder, run, config, given, resume, init_from))
        again = group.is_restart(run_folder)
        if resume or again:
            requested = (lambda frozen: frozen) if again else _requested(config, given)
            trainer = resume_run(run_folder, requested, accept_changes, group, [], notice, progress)
        else:
            settings = group.on_main(lambda: load_settings(config, given))
            source = None if init_from is None else Path(init_from)
            trainer = start_run(settings, run_folder, group, [], notice, progress, source)
        if group.is_main:
            _train(trainer, run_folder)
        else:
            _train_quietly(trainer)


def _train(trainer: Trainer, run_folder: RunFolder) -> None:
    """Train, and print the progress, the result and the next command."""
    from wavegen.cli.hints import forecast_command, generate_command, resume_command
    from wavegen.cli.progress import TrainingDisplay
    from wavegen.data.conditioning import build_conditioner
    from wavegen.report.observers import run_observers
    from wavegen.sampling.verdict import in_words
    from wavegen.training.distributed import ProcessDied
    from wavegen.training.progress import Interrupted

    _print_plan(trainer, run_folder)
    display = TrainingDisplay(trainer.plan.steps, trainer.progress, trainer.task.loss_unit.full_name)
    trainer.observers = [display, *run_observers(run_folder.path)]
    try:
        trainer.fit()
    except (Interrupted, ProcessDied) as stop:
        display.close()
        if isinstance(stop, ProcessDied):
            print_error(str(stop))
        typer.echo(f"stopped at step {trainer.progress.step:,}; checkpoint saved. Resume with:", err=True)
        typer.echo(f"  {resume_command(run_folder.path)}", err=True)
        raise typer.Exit(stop.exit_code) from None
    finally:
        display.close()
    if trainer.config.rate_hz is None:
        typer.echo(f"done: {run_folder.path}. Forecast with:", err=True)
        typer.echo(f"  {forecast_command(run_folder.path)}", err=True)
        return
    if display.audition_faults is not None:
        typer.echo(f"last audition: {in_words(display.audition_faults) or 'like the recordings'}", err=True)
    if display.audition_faults:
        typer.echo(f"Train longer with:\n  {resume_command(run_folder.path)} --minutes 30", err=True)
    typer.echo(f"done: {run_folder.path}. Generate audio with:", err=True)
    conditioner = build_conditioner(trainer.config)
    makes_sound_of_mel = conditioner.mel is not None
    typer.echo(
        f"  {generate_command(run_folder.path, conditioner.labels, makes_sound_of_mel, trainer.corpus)}", err=True
    )


def _train_quietly(trainer: Trainer) -> None:
    """Train on a rank other than 0, which prints for all."""
    from wavegen.training.distributed import ProcessDied
    from wavegen.training.progress import Interrupted

    try:
        trainer.fit()
    except (Interrupted, ProcessDied) as stop:
        raise typer.Exit(stop.exit_code) from None


def _requested(config: str | None, overrides: list[str]) -> Any:
    """Return the function from a run's frozen configuration to the one to resume with."""

    def requested(frozen: Config) -> Config:
        from wavegen.config import load_config, override

        if config is None:
            return override(frozen, overrides)
        given = load_config(config, overrides)
        if given.training.minutes is None or any(text.startswith("training.minutes=") for text in overrides):
            return given
        # the file's minutes are those of the whole training; the run has turned them into steps
        return given.with_values("training", minutes=None, steps=given.training.steps or frozen.training.steps)

    return requested


def _run_folder(
    folder: str | None, run: str | None, config: str | None, overrides: list[str], resume: bool, init_from: str | None
) -> RunFolder:
    """Return the run folder from --run, or the default one for the data."""
    from wavegen.runs.run_folder import RunFolder, run_of

    if resume and init_from is not None:
        raise UsageError("--init-from starts a new run and --resume continues one; give one of them")
    if run is not None:
        return RunFolder(Path(run))
    source = folder or load_settings(config, overrides).data_source
    if source is None:
        raise UsageError("expected a folder of recordings (wavegen train DIR) or a run (--run DIR), found neither")
    return run_of(source)


def _print_plan(trainer: Trainer, run: RunFolder) -> None:
    from wavegen.report.plan import plan_tables

    tables = plan_tables(trainer.plan, trainer.corpus, trainer.device, run.path, trainer.group.size)
    print_tables(tables, sys.stderr)
