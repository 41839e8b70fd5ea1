"""`wavegen generate`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from wavegen.cli.console import print_notice
from wavegen.cli.hints import forecast_command
from wavegen.cli.options import Device, Source, given_options
from wavegen.errors import UsageError

DEFAULT_OUTPUT = "generated.wav"
SEEDS = 1_000_000  # that are drawn: few digits, to be typed again


def generate(
    context: typer.Context,
    source: Source,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="wav, flac or ogg; - is standard output.  [default: generated.wav, or the next free name]",
            show_default=False,
        ),
    ] = DEFAULT_OUTPUT,
    seconds: Annotated[
        str | None,
        typer.Option(help="Length of each clip; inf goes on until stopped.  [default: 5, or that of the mel]"),
    ] = None,
    count: Annotated[int, typer.Option(help="Clips, made side by side and numbered.")] = 1,
    temperature: Annotated[float, typer.Option(help="Above 1 wilder, below 1 tamer, 0 always the likeliest.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest classes only; of a softmax.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest that reach this; of a softmax.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same audio.  [default: a new one, printed]")
    ] = None,
    best_of: Annotated[
        int,
        typer.Option(help="Candidates for each clip: the faulty are dropped, the rest ranked by likelihood."),
    ] = 1,
    prime: Annotated[str | None, typer.Option(metavar="AUDIO", help="A recording to continue.")] = None,
    steps: Annotated[int | None, typer.Option(hidden=True)] = None,  # that wavegen forecast has now
    with_prime: Annotated[bool, typer.Option("--with-prime", help="Write the recording before its continuation.")] = (
        False
    ),
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Sound like a label, or a mix a=0.7,b=0.3; again for the next clip."),
    ] = None,
    one_shot: Annotated[
        bool,
        typer.Option("--one-shot", help="One hit or note in each clip, which ends where it has faded."),
    ] = False,
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
    """Generate new audio."""
    import numpy as np

    from wavegen.cli.clips import ClipWriter
    from wavegen.sampling.writing import free_output, output_paths
    from wavegen.trained import SamplingOptions, load

    given = given_options(context)
    trained = load(source, device)
    if trained.is_series:
        _refuse_series(source, prime, output if "output" in given else None, steps)
    if steps is not None:
        raise UsageError("--steps: only wavegen forecast has it; give --seconds for sound")
    if with_prime and prime is None:
        raise UsageError("--with-prime: expected --prime AUDIO beside it, found none")
    length = _seconds(seconds or "5")
    if mel is not None and mel_from is not None:
        raise UsageError("--mel and --mel-from: expected one of them, found both")
    if "output" not in given and not overwrite:
        output = free_output(DEFAULT_OUTPUT, count)
    paths = output_paths(output, count, overwrite)
    if seed is None:
        seed = secrets.randbelow(SEEDS)
        print_notice(f"seed: {seed}")
    doubt = trained.doubt()
    if doubt:
        print_notice(doubt)
    rate = trained.sample_rate_hz
    past = None if prime is None else trained.read_prime(Path(prime))
    frames = None if mel is None else trained.read_mel(mel)
    if mel_from is not None:
        frames = trained.mel_of(trained.read(Path(mel_from)))
    if frames is not None and (seconds is None or length is None):
        length = frames.n_samples / rate
    options = SamplingOptions(
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
    )
    before = past if with_prime and past is not None else np.zeros(0, np.float32)
    n_samples = None if length is None else trained.n_samples(length)
    n_made = None if n_samples is None else n_samples * count * best_of
    verdict = trained.verdict(len(paths))
    writer = ClipWriter(paths, rate, before, overwrite, n_samples, n_made, verdict, is_undertrained=doubt is not None)
    if one_shot:
        if length is None or best_of > 1 or with_prime:
            raise UsageError("--one-shot: expected a finite --seconds and neither --best-of nor --with-prime")
        writer.write_one_shots(trained.one_shots(length, notice=print_notice, **options), trained.faults)
    elif best_of == 1:
        writer.write_stream(trained.stream(length, notice=print_notice, **options))
    else:
        writer.write_choices(trained.choose(length, best_of, made=writer.made, notice=print_notice, **options))


def _refuse_series(source: str, prime: str | None, output: str | None, steps: int | None) -> NoReturn:
    """Name the command that has taken over what this one once did for series of numbers."""
    options = [] if steps is None else ["--steps", str(steps)]
    options += [] if output is None else ["-o", output]
    raise UsageError(
        f"generate: expected a model of sound; a model of series forecasts: "
        f"{forecast_command(source, prime or 'series.csv', options)}"
    )


def _seconds(text: str) -> float | None:
    """A length, or None for one without end."""
    try:
        return None if float(text) == float("inf") else float(text)
    except ValueError:
        raise UsageError(f"--seconds: expected a number above 0, or inf, found '{text}'") from None
