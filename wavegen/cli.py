"""The command line: parse, call, print. What a command does is done elsewhere."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wavegen import __version__
from wavegen.errors import UsageError, WavegenError

if TYPE_CHECKING:
    from wavegen.config import Config
    from wavegen.trained import TrainedModel
    from wavegen.training.run_folder import RunFolder
    from wavegen.training.trainer import Trainer


class Commands(TyperGroup):
    """Turns errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit codes: 1 failed, 2 wrong call, 128 + N stopped by signal N."""
        try:
            return super().invoke(ctx)
        except WavegenError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _complain(str(error))
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            _drop_standard_output()
            raise typer.Exit(0) from None
        except OSError as error:  # that nobody has put into words
            if ctx.params.get("debug"):
                traceback.print_exc()
            _complain(f"{_shortened(error.filename)}: {error.strerror}" if error.filename else str(error.strerror))
            raise typer.Exit(2 if error.errno == errno.ENAMETOOLONG else 1) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


class Command(TyperCommand):
    """Refuses empty texts: what an unset variable of a shell becomes is no name of the folder one is in."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if "" in (value if isinstance(value, list | tuple) else [value]):
                name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
                raise UsageError(f"{name}: expected a value, found an empty one")
        return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key: model.residual_channels=64")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wavegen {__version__}")
        raise typer.Exit


@app.callback()
def wavegen(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Train a WaveNet on a folder of recordings and generate new raw audio from it.

    wavegen train my_recordings/ ; wavegen generate runs/my_recordings -o new.wav
    """
    del debug, version  # Commands.invoke and _print_version look at them


@app.command(cls=Command)
def train(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Folder of recordings, or of series (.npy, .csv).")
    ] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file or a preset's name.")] = None,
    overrides: Overrides = None,
    run: Annotated[
        str | None,  # under torchrun --run is ambiguous: argparse takes it for the start of one of torchrun's options
        typer.Option("--run", "--run-folder", metavar="DIR", help="Run folder.  [default: runs/NAME OF DIR]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; training.steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for all of it; training.minutes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and windows; training.seed.")] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run where it stopped.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although configuration or recordings have changed.")
    ] = False,
    init_from: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Start from another run's weights (fine-tuning).")
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Processes on this machine: one for each GPU, or part of the cores."),
    ] = None,
) -> None:
    """Train a model on a folder of recordings."""
    from wavegen.training.distributed import PARENT_KEY, joined, place_from
    from wavegen.training.processes import own_command, run_processes

    if devices is not None and devices > 1 and PARENT_KEY not in os.environ:
        if place_from(os.environ) is not None:
            raise UsageError("--devices: this process is one of several already; leave it out")
        raise typer.Exit(run_processes(devices, own_command(), _complain))
    from wavegen.training import launch

    given = list(overrides or [])
    for key, value in {"steps": steps, "minutes": minutes, "seed": seed}.items():
        if value is not None:
            given.append(f"training.{key}={value}")
    if folder is not None:
        given.append(f"data.folder={json.dumps(os.path.abspath(folder))}")  # noqa: PTH100 (resolves no links)
    with joined(device) as group:
        notice, progress = (_notice, _data_progress()) if group.speaks else (_silence, None)
        named = folder if folder is not None or run is not None else _named_data(config, given)
        run_folder = group.attempt(lambda: _run_folder(named, run, resume, init_from))
        again = group.restarts(run_folder)
        if resume or again:
            requested = (lambda frozen: frozen) if again else _requested(config, given)
            trainer = launch.resume(run_folder, requested, accept_changes, group, [], notice, progress)
        else:
            settings = group.attempt(lambda: _load_config(config, given))
            source = None if init_from is None else Path(init_from)
            trainer = launch.new_run(settings, run_folder, group, [], notice, progress, source)
        if group.speaks:
            _train(trainer, run_folder)
        else:
            _train_along(trainer)


def _train(trainer: Trainer, run_folder: RunFolder) -> None:
    """Train, and say how it goes."""
    from wavegen.evaluation.measure import measure_of
    from wavegen.report.next_call import hearing, resuming
    from wavegen.report.observers import run_observers
    from wavegen.report.terminal import TrainingDisplay
    from wavegen.training.distributed import LostProcess
    from wavegen.training.interruption import Interrupted

    _print_plan(trainer, run_folder)
    display = TrainingDisplay(trainer.total_steps, trainer.progress, measure_of(trainer.config).unit)
    trainer.observers = [display, *run_observers(run_folder.path)]
    try:
        trainer.fit()
    except (Interrupted, LostProcess) as stop:
        display.close()
        if isinstance(stop, LostProcess):
            _complain(str(stop))
        typer.echo(f"stopped at step {trainer.progress.step:,}; saved. Go on with:", err=True)
        typer.echo(f"  {resuming(run_folder.path)}", err=True)
        raise typer.Exit(stop.exit_code) from None
    finally:
        display.close()
    if trainer.config.is_series:
        typer.echo(f"done: {run_folder.path}. Go on with a series with:", err=True)
        typer.echo(f"  wavegen generate {run_folder.path} --prime series.csv -o forecast.csv", err=True)
        return
    typer.echo(f"done: {run_folder.path}. Hear it with:", err=True)
    labels, mel = trainer.conditioner.labels, trainer.conditioner.mel
    typer.echo(f"  {hearing(run_folder.path, labels, mel is not None, trainer.corpus)}", err=True)


def _train_along(trainer: Trainer) -> None:
    """Train without a word: rank 0 speaks."""
    from wavegen.training.distributed import LostProcess
    from wavegen.training.interruption import Interrupted

    try:
        trainer.fit()
    except (Interrupted, LostProcess) as stop:
        raise typer.Exit(stop.exit_code) from None


@app.command(cls=Command)
def generate(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder or a checkpoint.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="wav, flac or ogg; of series csv or npy; - is standard output, WAV or CSV.",
        ),
    ] = "generated.wav",
    seconds: Annotated[
        str | None,
        typer.Option(help="Length of each clip; inf goes on until stopped.  [default: 5, or that of the mel]"),
    ] = None,
    count: Annotated[int, typer.Option(help="Clips, made side by side and numbered.")] = 1,
    temperature: Annotated[float, typer.Option(help="Above 1 wilder, below 1 tamer, 0 always the likeliest.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest classes only; of a softmax.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest that reach this; of a softmax.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.")] = 0,
    prime: Annotated[
        str | None, typer.Option(metavar="AUDIO|SERIES", help="A recording, or a file of series, to continue.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Of series: values to forecast. Beyond the model's horizon, the default, its forecasts count as known."
        ),
    ] = None,
    with_prime: Annotated[bool, typer.Option("--with-prime", help="Write the recording before its continuation.")] = (
        False
    ),
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Sound like a label, or a mix a=0.7,b=0.3; again for the next clip."),
    ] = None,
    mel_from: Annotated[
        str | None, typer.Option(metavar="AUDIO", help="Make this recording anew from its mel spectrogram.")
    ] = None,
    mel: Annotated[str | None, typer.Option(metavar="FILE.npy", help="Make sound of these mel frames.")] = None,
    engine: Annotated[str, typer.Option(help="auto, numba, torch or reference")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, float32, bfloat16 or int8.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="That share the clips.  [default: all cores]")] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Generate new audio, or forecast series."""
    import numpy as np

    from wavegen.report.terminal import ProgressBar
    from wavegen.sampling.writing import output_paths, write_clips
    from wavegen.trained import load

    given = _given(context)
    trained = load(source, device)
    if trained.is_series or steps is not None:
        _forecast(trained, prime, output if "output" in given else "forecast.csv", steps, overwrite, given)
        return
    if with_prime and prime is None:
        raise UsageError("--with-prime: expected --prime AUDIO beside it, found none")
    length = _seconds(seconds or "5")
    if mel is not None and mel_from is not None:
        raise UsageError("--mel and --mel-from: expected one of them, found both")
    paths = output_paths(output, count, overwrite)
    doubt = trained.doubt()
    if doubt:
        _notice(doubt)
    rate = trained.sample_rate_hz
    past = None if prime is None else trained.read(Path(prime))
    frames = None if mel is None else trained.read_mel(mel)
    if mel_from is not None:
        frames = trained.mel_of(trained.read(Path(mel_from)))
    if frames is not None and (seconds is None or length is None):
        length = frames.n_samples / rate
    blocks = trained.stream(
        length,
        count=count,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        prime=past,
        labels=label or (),
        mel=frames,
        engine=engine,
        precision=precision,
        threads=threads,
        notice=_notice,
    )
    before = past if with_prime and past is not None else np.zeros(0, np.float32)
    n_samples = None if length is None else round(length * rate)
    with ProgressBar("generating", n_samples and n_samples * count, unit="sample") as bar:

        def written(made: int) -> None:
            bar.move_to(made * count, f"{bar.rate() / rate:.2f} x real time")

        try:
            write_clips(blocks, paths, rate, n_samples=n_samples, before=before, overwrite=overwrite, written=written)
        except (KeyboardInterrupt, SystemExit):
            if bar.count:
                _notice(f"stopped; {bar.count // count / rate:.2f} s kept in {', '.join(paths)}")
            raise
        speed = bar.rate()
    names = "standard output" if output == "-" else paths[0] if count == 1 else f"{paths[0]} to {paths[-1]}"
    _notice(
        f"{names}: {count} x {bar.count // count / rate:.2f} s, {speed:,.0f} samples/s ({speed / rate:.2f} x real time)"
    )


def _given(context: typer.Context) -> set[str]:
    """The options that the command line has."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse(given: set[str], allowed: set[str], what: str) -> None:
    """Complain of options that a kind of model does not have."""
    if strange := sorted(given - allowed):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        raise UsageError(f"{options}: not with {what}; leave {'it' if len(strange) == 1 else 'them'} out")


def _forecast(
    trained: TrainedModel, prime: str | None, output: str, steps: int | None, overwrite: bool, given: set[str]
) -> None:
    """Write how the series of a file go on."""
    from wavegen.data.series_files import check_output, read_series, write_series

    trained.check_kind(True, "--steps")
    _refuse(given, {"source", "output", "prime", "steps", "device", "overwrite"}, "a model of series of numbers")
    if prime is None:
        raise UsageError("--prime: expected a file of series to go on with (.csv, .npy), found none")
    check_output(output, overwrite)
    known = read_series(Path(prime))
    if known.left_out:
        _notice(f"{prime}: columns without numbers are left out: {', '.join(known.left_out)}")
    forecasts = {name: trained.forecast(values, steps) for name, values in known.series.items()}
    write_series(output, forecasts, sys.stdout)
    length = len(next(iter(forecasts.values())))
    where = "standard output" if output == "-" else output
    _notice(f"{where}: {len(forecasts)} series, the next {length} values of each")


@app.command(cls=Command)
def evaluate(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder or a checkpoint.")],
    audio: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Audio or series to score, or folders of it; else what the run held out."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of all AUDIO; or a mix a=0.7,b=0.3.  [default: the folder]"),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only all clips together.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Score the made-up series that are neither trained on nor held out.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score audio in bits/sample, or forecasts of series, beside trivial baselines fitted on the training split."""
    from wavegen.evaluation.evaluation import score_clips, total
    from wavegen.report.scores import clip_table, cost_tables, summary_table
    from wavegen.report.terminal import ProgressBar
    from wavegen.trained import load

    trained = load(source, device)
    if trained.is_series:
        _refuse(_given(context), {"source", "audio", "summary", "test", "device", "as_json"}, "a model of series")
        _evaluate_series(trained, [Path(path) for path in audio or []], test, summary, as_json)
        return
    _refuse(_given(context) & {"test"}, set(), "a model of sound")
    if label is not None and not audio:
        raise UsageError("--label: expected AUDIO to score beside it; held-out clips have their own labels")
    if label is not None and not trained.labels:
        raise UsageError("--label: this model has no labels; leave it out")
    paths = [Path(path) for path in audio or []]
    clips = trained.read_all(paths, _notice, label) if paths else trained.held_out(_data_progress())
    baselines = trained.fit_baselines(_notice, _data_progress())
    with ProgressBar("scoring", sum(len(clip.classes) for clip in clips), unit="sample") as bar:
        scores = score_clips(trained.network, clips, trained.quantizer, baselines, lambda n: bar.move_to(bar.count + n))
    rate = trained.sample_rate_hz
    if as_json:
        costs = trained.precision_costs
        clip_scores = [score.as_dict(rate) for score in scores]
        sound = {"quantization": trained.quantizer.kind, "classes": trained.quantizer.classes}
        document = {**total(scores).as_dict(rate), **sound, "precision_costs": costs, "clips": clip_scores}
        typer.echo(json.dumps(document, indent=2))
    else:
        each = [] if summary or len(scores) == 1 else [clip_table(scores, rate)]
        _print_tables([*each, summary_table(scores, rate, trained.quantizer), *cost_tables(trained.precision_costs)])


def _evaluate_series(trained: TrainedModel, paths: list[Path], test: bool, summary: bool, as_json: bool) -> None:
    """Score a model of series."""
    from wavegen.evaluation.measure import measure_of
    from wavegen.evaluation.series import score_series
    from wavegen.report.scores import series_document, series_tables
    from wavegen.report.terminal import ProgressBar

    series = trained.series_to_score(paths, test, _notice)
    linear = trained.fit_linear_forecast(_notice)
    with ProgressBar("scoring", None, unit="position") as bar:
        errors = trained.score_series(series, lambda n: bar.move_to(bar.count + n))
    scores = score_series(series, errors, linear, trained.config.output.horizon, trained.config.output.error)
    measure = measure_of(trained.config)
    if as_json:
        typer.echo(json.dumps(series_document(scores, measure), indent=2))
    else:
        _print_tables(series_tables(scores, measure, summary))


@app.command(cls=Command)
def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="A folder, a file of audio or series, a config, a checkpoint or a run; several runs to compare.",
        ),
    ],
    listen: Annotated[
        bool,
        typer.Option("--listen", help="Decode a folder's files: levels, clipping, silence, duplicates."),
    ] = False,
    as_json: Json = False,
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="Draw a picture of it.")] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Write a page about a run: curves, auditions, samples.")
    ] = None,
    temperatures: Annotated[str, typer.Option(help="Of the page's new samples.")] = "0.7,0.85,1",
    sample_seconds: Annotated[float, typer.Option(help="Length of each new sample; 0 for none.")] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture or page.")] = False,
    drop_cache: Annotated[
        bool, typer.Option("--drop-cache", help="Afterwards delete what was decoded from a folder's files.")
    ] = False,
) -> None:
    """Show what something is."""
    from wavegen.data.cache import ClipCache
    from wavegen.report.inspection import inspect_paths
    from wavegen.report.page import SampleRequest, check_page, write_page
    from wavegen.report.pictures import draw
    from wavegen.report.target import check_target

    if drop_cache and (len(paths) != 1 or not Path(paths[0]).is_dir()):
        raise UsageError(f"--drop-cache: expected one folder of recordings, found {' '.join(paths)}")
    if plot is not None:
        check_target(Path(plot), ".png", overwrite)
    request = SampleRequest.parse(temperatures, sample_seconds)
    if html is not None:
        check_page(paths, Path(html), overwrite)
    inspection = inspect_paths(paths, _data_progress("reading"), hear=listen)
    if as_json:
        typer.echo(json.dumps(inspection.facts, indent=2))
    else:
        _print_tables(inspection.tables)
    if plot is not None:
        draw(inspection, Path(plot))
        _notice(f"drawn: {plot}")
    if html is not None:
        n_bytes = write_page(inspection, Path(html), request, _data_progress("generating", "sample"))
        _notice(f"written: {html}, {n_bytes / 1e6:.1f} MB")
    if drop_cache:
        if inspection.kind != "folder":
            raise UsageError(f"--drop-cache: expected one folder of recordings, found {paths[0]}: a {inspection.kind}")
        dropped = ClipCache().drop(Path(paths[0]))
        _notice(f"dropped from the cache: {dropped.n_files:,} files, {dropped.n_bytes / 1e6:.1f} MB")


@app.command(cls=Command)
def bench(
    source: Annotated[
        str | None, typer.Argument(metavar="[RUN|CHECKPOINT]", help="Measure with this model's shape and weights.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file or a preset's name.  [default: small]")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine generates and trains."""
    from wavegen.bench.rows import measure
    from wavegen.device import processor_name
    from wavegen.report.speeds import machine_table, speed_tables
    from wavegen.trained import load

    if source is not None and (config is not None or overrides):
        raise UsageError("expected a run or a checkpoint, or --config and --set, found both; give one of them")
    trained = None if source is None else load(source, "cpu")
    settings = _load_config(config, list(overrides or [])) if trained is None else trained.config
    if settings.is_series:
        raise UsageError("bench: it measures models of sound, found output.kind: regression")
    machine, rows = measure(settings, None if trained is None else trained.network, _notice)
    measured = list(rows)
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in measured], indent=2))
    else:
        _print_tables([machine_table(machine, processor_name()), *speed_tables(measured)])


@app.command(cls=Command)
def export(
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder or a checkpoint.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help=".safetensors, or .onnx: a step.")],
    precision: Annotated[str, typer.Option(help="Of the weights: float32 or bfloat16.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a model for use: averaged weights and configuration alone, or one step of sampling for ONNX."""
    from wavegen.report.tables import file_size
    from wavegen.report.target import check_target, write_whole
    from wavegen.sampling.onnx_step import onnx_step
    from wavegen.training.checkpoint import load_checkpoint, save_checkpoint
    from wavegen.training.export import for_use, goes_to_onnx
    from wavegen.training.run_folder import find_checkpoint

    path = Path(output)
    to_onnx = goes_to_onnx(path, precision)
    check_target(path, path.suffix, overwrite)
    checkpoint = load_checkpoint(find_checkpoint(Path(source)))
    if to_onnx:
        write_whole(path, onnx_step(checkpoint.average, checkpoint.config))
    else:
        save_checkpoint(for_use(checkpoint, precision), path)
    _notice(f"written: {output}, {file_size(path.stat().st_size)}, averaged weights in {precision}")


@app.command("config", cls=Command)
def config_(
    preset: Annotated[str | None, typer.Argument(metavar="[PRESET]", help="The preset to print.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema, for editors.")] = False,
) -> None:
    """List the presets, or print one to edit: wavegen config small > my.yaml."""
    from wavegen.config import json_schema, preset_summaries, preset_text
    from wavegen.report.tables import Table

    if schema:
        if preset is not None:
            raise UsageError("--schema: it is the same for all presets; give one of the two")
        typer.echo(json.dumps(json_schema(), indent=2))
    elif preset is not None:
        typer.echo(preset_text(preset), nl=False)
    else:
        _print_tables([Table("Presets: wavegen config NAME > my.yaml", (), list(preset_summaries().items()))])


def _load_config(config: str | None, overrides: list[str]) -> Config:
    from wavegen.config import DEFAULT_PRESET, load_config

    return load_config(config or DEFAULT_PRESET, overrides)


def _requested(config: str | None, overrides: list[str]) -> Any:
    """What a resuming call asks for: the frozen configuration, or the one given now, with the overrides."""

    def requested(frozen: Config) -> Config:
        from wavegen.config import load_config, override

        return override(frozen, overrides) if config is None else load_config(config, overrides)

    return requested


def _named_data(config: str | None, overrides: list[str]) -> str | None:
    """What a configuration makes its data of, where it needs no folder."""
    return None if config is None else _load_config(config, overrides).data.synthetic


def _run_folder(folder: str | None, run: str | None, resume: bool, init_from: str | None) -> RunFolder:
    from wavegen.training.run_folder import RunFolder

    if resume and init_from is not None:
        raise UsageError("--init-from starts a new run and --resume goes on with one; give one of them")
    if run is None and folder is None:
        raise UsageError("expected a folder of recordings (wavegen train DIR) or a run (--run DIR), found neither")
    return RunFolder(Path(run) if run is not None else Path("runs") / Path(str(folder)).absolute().name)


def _print_plan(trainer: Trainer, run: RunFolder) -> None:
    from wavegen.report.plan import plan_tables

    tables = plan_tables(trainer.config, trainer.corpus, trainer.model, trainer.device, run.path, trainer.group.size)
    _print_tables(tables, sys.stderr)


def _print_tables(tables: Any, file: Any = None) -> None:
    from wavegen.report.tables import print_tables

    print_tables(tables, file or sys.stdout)


def _data_progress(what: str = "reading recordings", unit: str = "file") -> Any:
    """A progress callback that shows a bar only where there is something to wait for."""
    from wavegen.report.terminal import ProgressBar

    bars: list[ProgressBar] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(ProgressBar(what, total, unit=unit))
        bars[0].move_to(done)
        if done >= total:
            bars.pop().__exit__(None, None, None)

    return progress


def _seconds(text: str) -> float | None:
    """A length, or None for one without end."""
    try:
        return None if float(text) == float("inf") else float(text)
    except ValueError:
        raise UsageError(f"--seconds: expected a number above 0, or inf, found '{text}'") from None


def _complain(text: str) -> None:
    for line in text.splitlines():
        typer.echo(f"error: {line}", err=True)


def _shortened(path: Any) -> str:
    """A path that fits on a line."""
    text = repr(os.fsdecode(path))[1:-1]  # control characters escaped
    return text if len(text) <= 200 else f"{text[:200]}..."


def _silence(text: str) -> None:
    """Say nothing: another process does."""


def _notice(text: str) -> None:
    typer.echo(text, err=True)


def _drop_standard_output() -> None:
    """Whoever read from the pipe has gone: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
