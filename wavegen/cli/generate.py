"""`wavegen generate`."""

from __future__ import annotations

import math
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from wavegen.cli import console
from wavegen.cli.console import Device, Overwrite, Source, option
from wavegen.errors import UsageError
from wavegen.text import list_first, printable

if TYPE_CHECKING:
    from wavegen.api import TrainedModel
    from wavegen.audio.frames import Frames

DEFAULT_OUTPUT = "generated.wav"
DEFAULT_SECONDS = "5"
SEEDS = 1_000_000  # of random seeds: few digits, easy to type again


OUTPUT_HELP = "File to write: .wav, .flac or .ogg; - for standard output.  [default: generated.wav, or a free name]"
SECONDS_HELP = "Seconds of each clip; inf generates until stopped.  [default: 5, or the length of the frames]"
ONE_SHOT_HELP = "End each clip where its sound has faded, for single hits and notes."
TEMPERATURE_HELP = (
    "Sampling temperature: above 1 wilder, below 1 tamer (0.9 may be silent), 0 the likeliest class. "
    "Default: the model's, 0.99 or 1; inspect names it."
)
BEST_OF_HELP = "Candidates per clip; faulty ones are dropped, the most typical one is written."
SEED_HELP = "Random seed; the same seed gives the same audio.  [default: a new one, printed]"
LABEL_HELP = "Label to generate, or a mix such as a=0.7,b=0.3; repeat the option for further clips."
MEL_FROM_HELP = "Recording whose mel spectrogram is turned back into sound."
MEL_HELP = "NumPy file of mel frames, (F, n_mels), to turn into sound."
FEATURES_HELP = "NumPy file of features, (F, D), as the model was trained with, to make sound of."
ENGINE_HELP = "Sampling engine: auto, numba, torch, triton (CUDA) or reference."
THREADS_HELP = "CPU threads; clips are distributed over them.  [default: all cores]"


def generate(
    context: typer.Context,
    source: Source,
    output: Annotated[
        str, option("Output", OUTPUT_HELP, "-o", "--output", metavar="FILE", show_default=False)
    ] = DEFAULT_OUTPUT,
    overwrite: Overwrite = False,
    seconds: Annotated[str | None, option("Sound", SECONDS_HELP)] = None,
    count: Annotated[int, option("Sound", "Number of clips, generated side by side into numbered files.")] = 1,
    one_shot: Annotated[bool, option("Sound", ONE_SHOT_HELP, "--one-shot")] = False,
    prime: Annotated[str | None, option("Sound", "Recording to continue.", metavar="AUDIO")] = None,
    with_prime: Annotated[
        bool, option("Sound", "Write the recording before its continuation.", "--with-prime")
    ] = False,
    steps: Annotated[int | None, typer.Option(hidden=True)] = None,  # moved to wavegen forecast
    temperature: Annotated[float | None, option("Choice", TEMPERATURE_HELP)] = None,
    top_k: Annotated[int | None, option("Choice", "Sample from the k likeliest classes, softmax outputs only.")] = None,
    top_p: Annotated[float | None, option("Choice", "Nucleus sampling threshold, softmax outputs only.")] = None,
    best_of: Annotated[int, option("Choice", BEST_OF_HELP)] = 1,
    seed: Annotated[int | None, option("Choice", SEED_HELP)] = None,
    label: Annotated[list[str] | None, option("Conditioning", LABEL_HELP, metavar="NAME")] = None,
    mel_from: Annotated[str | None, option("Conditioning", MEL_FROM_HELP, metavar="AUDIO")] = None,
    mel: Annotated[str | None, option("Conditioning", MEL_HELP, metavar="FILE.npy")] = None,
    features: Annotated[str | None, option("Conditioning", FEATURES_HELP, metavar="FILE.npy")] = None,
    engine: Annotated[str, option("Machine", ENGINE_HELP)] = "auto",
    precision: Annotated[str, option("Machine", "Precision of the weights: auto, float32, bfloat16 or int8.")] = "auto",
    threads: Annotated[int | None, option("Machine", THREADS_HELP)] = None,
    device: Device = "auto",
) -> None:
    """Generate new audio from a trained model.

    wavegen generate voice ; wavegen generate runs/my_recordings -o new.wav --seconds 10 --best-of 8 ;
    wavegen generate runs/my_voices --label anna=0.7,bert=0.3 -o between.wav
    """
    import numpy as np

    from wavegen.api import load
    from wavegen.audio.read import is_run
    from wavegen.audio.write import free_output, output_paths
    from wavegen.cli.clips import ClipWriter
    from wavegen.sampling.sampler import samples_in

    given = console.given_options(context)
    model = load(source, device)
    if model.forecaster is not None:
        _refuse_series(source, prime, output if "output" in given else None, steps)
    if steps is not None:
        raise UsageError("--steps: only wavegen forecast has this option; give --seconds for sound")
    length = _parse_seconds(seconds or DEFAULT_SECONDS)
    if with_prime and prime is None:
        raise UsageError("--with-prime: expected --prime AUDIO too, found none")
    if one_shot and (
        length is None or best_of > 1 or any(each is not None for each in (prime, mel, mel_from, features))
    ):
        others = "--best-of, --prime, --mel, --mel-from and --features"
        raise UsageError(f"--one-shot: expected a finite --seconds and none of {others}")
    if "output" not in given and not overwrite:
        output = free_output(DEFAULT_OUTPUT, count)
    paths = output_paths(output, count, overwrite)
    warning = model.undertrained_warning()
    if warning:
        console.print_notice(warning)
    whole = {"last_seconds": math.inf} if with_prime else {}
    past = None if prime is None else model.load_prime(prime, console.print_notice, **whole)
    frames = _frames(model, mel, mel_from, features)
    if frames is not None and (seconds is None or length is None):
        length = frames.n_samples / model.sample_rate_hz
    is_new_seed, seed = seed is None, secrets.randbelow(SEEDS) if seed is None else seed
    options: dict[str, Any] = {"count": count, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    options |= {"prime": past, "labels": label or ()}
    if frames is not None and model.conditioner.frames is not None:
        options[model.conditioner.frames.name] = frames
    options |= {"engine": engine, "precision": precision, "threads": threads, "notice": console.print_notice}
    n_samples = None if length is None else samples_in(length, model.sample_rate_hz)
    asked = 1.0 if temperature is None else temperature
    tamer = {"temperature": asked if asked < 1 else None, "top-k": top_k, "top-p": top_p}
    writer = ClipWriter(
        paths,
        model.sample_rate_hz,
        before=past if with_prime and past is not None else np.zeros(0, np.float32),
        overwrite=overwrite,
        n_samples=n_samples,
        n_made=None if n_samples is None else n_samples * count * best_of,
        verdict=model.verdict(len(paths), label or ()),
        is_undertrained=warning is not None,
        tamer=[f"--{name} {value:g}" for name, value in tamer.items() if value is not None],
        wilder=[f"--temperature {asked:g}"] if asked > 1 else [],
        trains_longer=console.train_longer_command(Path(source)) if is_run(Path(source)) else None,
        is_best=one_shot or best_of > 1,
    )
    made: Any = None  # begun before the seed is printed: it refuses options that cannot be
    if not one_shot and best_of == 1:
        made = model.stream(length, **options)
    elif not one_shot:
        made = model.generate_best(length, best_of, progress=writer.made, **options)
    if is_new_seed:
        console.print_notice(f"seed: {seed}")
    in_turn = (label or list(model.labels))[:count]
    if len(in_turn) > 1:
        files = [
            f"{printable(name)} in {list_first(paths[i :: len(in_turn)], 4, ', ')}" for i, name in enumerate(in_turn)
        ]
        console.print_notice(f"labels: {list_first(files, 20)}")
    if one_shot and length is not None:
        writer.write_one_shots(model.generate_one_shots(length, **options), model.faults)
    elif best_of == 1:
        writer.write_stream(made)
    else:
        writer.write_best(made)


def _frames(model: TrainedModel, mel: str | None, mel_from: str | None, features: str | None) -> Frames | None:
    """Load the frames of ``--mel``, ``--mel-from`` or ``--features``."""
    from wavegen.audio.frames import MelSpectrogram

    options = {"--mel": mel, "--mel-from": mel_from, "--features": features}
    if len(given := [name for name, value in options.items() if value is not None]) > 1:
        raise UsageError(f"{' and '.join(given)}: expected one of them, found {len(given)}")
    if features is not None:
        return model.load_features(features)
    if mel is not None:
        return model.load_mel(mel)
    if mel_from is not None:
        model.conditioner.check_takes(MelSpectrogram, "mel_from")
        return model.mel_spectrogram(model.load_clip(mel_from, console.print_notice))
    if (source := model.conditioner.frames) is not None:
        expected = "--mel-from AUDIO or --mel FILE.npy" if isinstance(source, MelSpectrogram) else "--features FILE.npy"
        raise UsageError(f"this model makes sound of {source.kind}; expected {expected}, found none")
    return None


def _refuse_series(source: str, prime: str | None, output: str | None, steps: int | None) -> NoReturn:
    """Refuse a model of series, and name the command that forecasts."""
    options = [] if steps is None else ["--steps", str(steps)]
    options += [] if output is None else ["-o", output]
    command = console.forecast_command(source, prime or "series.csv", options)
    raise UsageError(f"generate: expected a model of sound; a model of series forecasts: {command}")


def _parse_seconds(text: str) -> float | None:
    """Return a length, or None for an endless stream."""
    try:
        return None if float(text) == float("inf") else float(text)
    except ValueError:
        raise UsageError(f"--seconds: expected a number above 0, or inf, found '{text}'") from None
