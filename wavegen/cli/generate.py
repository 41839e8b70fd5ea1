"""`wavegen generate`."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from wavegen.cli import console
from wavegen.cli.console import Device, Overwrite, Source, option
from wavegen.errors import UsageError
from wavegen.text import list_first, pluralize, printable

if TYPE_CHECKING:
    from wavegen.api import TrainedModel
    from wavegen.audio.frames import Frames
    from wavegen.audio.quantize import Floats
    from wavegen.sampling.candidates import BestCandidate
    from wavegen.sampling.verdict import Fault, Verdict

DEFAULT_OUTPUT = "generated.wav"
DEFAULT_SECONDS = 5.0
SEEDS = 1_000_000  # of random seeds: few digits, easy to type again
MOST_LINES = 10  # on faulty clips; the rest is counted


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
    seconds: Annotated[float | None, option("Sound", SECONDS_HELP)] = None,
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
    from wavegen.sampling.sampler import samples_in

    given, run = console.given_options(context), Path(source)
    model = load(source, device)
    if model.forecaster is not None:
        _refuse_series(source, prime, output if "output" in given else None, steps)
    if steps is not None:
        raise UsageError("--steps: only wavegen forecast has this option; give --seconds for sound")
    length = None if seconds == math.inf else DEFAULT_SECONDS if seconds is None else seconds
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
        train_longer="train longer" + (f": {console.train_longer_command(run)}" if is_run(run) else ""),
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


@dataclass
class ClipWriter:
    """Writes generated clips and reports progress and faults.

    Args:
        paths: one for each clip; - is standard output.
        rate_hz: of the clips.
        before: (T,) written ahead of each clip.
        overwrite: replace existing files.
        n_samples: length of each clip; None for an endless stream.
        n_made: samples of all clips and candidates together; None for an endless stream.
        verdict: judges the clips of a stream.
        is_undertrained: the model is known to need more training.
        tamer, wilder: the options given that make sound so, as ``--top-p 0.9``; to blame for silence, or for noise.
        train_longer: the advice to train longer, with the command where the model is a run's.
        is_best: the clips are the best of several candidates already, or one-shots, which have none.
    """

    paths: list[str]
    rate_hz: int
    before: Floats
    overwrite: bool
    n_samples: int | None
    n_made: int | None
    verdict: Verdict
    is_undertrained: bool
    tamer: Sequence[str] = ()
    wilder: Sequence[str] = ()
    train_longer: str = "train longer"
    is_best: bool = False
    bar: console.ProgressBar = field(init=False)  # while it writes

    def made(self, n_samples: int) -> None:
        """Show the number of samples generated so far, all clips together."""
        self.bar.move_to(n_samples, f"{self.bar.rate(n_samples) / self.rate_hz:.2f} x real time")

    def write_stream(self, blocks: Iterable[Floats]) -> None:
        """Write clips as they are made, (count, n) at a time."""
        count, verdict = len(self.paths), self.verdict

        def watched() -> Iterator[Floats]:
            for block in blocks:
                for clip, fault in verdict.update(block):
                    if self.n_samples is None:  # an endless stream: no verdict follows at the end
                        advice = self.remedy([fault])
                        console.print_notice(f"{_name(self.paths[clip])}: {fault} so far; {advice}")
                yield block

        def stopped() -> str:
            seconds = self.bar.count // count / self.rate_hz
            return f"{seconds:.2f} s written to {self._names()}" if self.bar.count else ""

        with self._writing(stopped):
            self._write(watched(), self.paths, lambda made: self.made(made * count))
        self._print_verdicts([verdict.faults(i) for i in range(count)])

    def _print_verdicts(self, each: Sequence[list[Fault]]) -> None:
        """Print a line for each of the first faulty clips."""
        from wavegen.sampling.verdict import in_words

        faulty = [(path, faults) for path, faults in zip(self.paths, each, strict=True) if faults]
        for path, faults in faulty[:MOST_LINES]:
            console.print_notice(f"{_name(path)}: {in_words(faults)}; {self.remedy(faults)}")
        if len(faulty) > MOST_LINES:
            console.print_notice(f"... {len(faulty) - MOST_LINES} more of the {len(each)} clips are faulty")

    def write_one_shots(self, clips: Sequence[Floats], judge: Callable[[Floats], list[Fault]]) -> None:
        """Write clips of different lengths, and print their verdicts."""
        from wavegen.audio.write import write_clip

        for path, clip in zip(self.paths, clips, strict=True):
            write_clip(clip, path, self.rate_hz, self.overwrite)
        lengths = sorted(len(clip) / self.rate_hz for clip in clips)
        span = f"{lengths[0]:.2f} s" if len(clips) == 1 else f"{lengths[0]:.2f} to {lengths[-1]:.2f} s long"
        unended = sum(length >= (self.n_samples or 0) / self.rate_hz for length in lengths)
        still = f"; {unended} had not faded: raise --seconds, or train longer" if unended else ""
        console.print_notice(f"{self._names()}: {pluralize(len(clips), 'one-shot')}, {span}{still}")
        self._print_verdicts([judge(clip) for clip in clips])

    def write_best(self, candidates: Iterable[BestCandidate]) -> None:
        """Write each clip when the best of its candidates is found."""
        done = 0
        with self._writing(lambda: f"{done} of {len(self.paths)} clips are written"):
            for path, best in zip(self.paths, candidates, strict=True):
                self._write([best.waveform[None]], [path], lambda _: None)
                advice = f"; {self.remedy(best.faults)}" if best.faults else ""
                console.print_notice(f"{_name(path)}: {best}{advice}")
                done += 1

    @contextmanager
    def _writing(self, stopped: Callable[[], str]) -> Iterator[None]:
        """Show a bar while clips are written, then what was; ``stopped`` returns what there is after a Ctrl-C."""
        with console.ProgressBar("generating", self.n_made, unit="sample") as self.bar:
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                if kept := stopped():
                    console.print_notice(f"stopped; {kept}")
                raise
        rate, speed, seconds = self.rate_hz, self.bar.rate(), (self.n_samples or 0) / self.rate_hz
        length = f"{len(self.paths)} x {seconds:.2f} s"
        console.print_notice(f"{self._names()}: {length}, {speed:,.0f} samples/s ({speed / rate:.2f} x real time)")

    def _write(self, blocks: Iterable[Floats], paths: list[str], written: Callable[[int], None]) -> None:
        from wavegen.audio.write import write_clips

        how: dict[str, Any] = {"n_samples": self.n_samples, "before": self.before, "overwrite": self.overwrite}
        write_clips(blocks, paths, self.rate_hz, written=written, **how)

    def remedy(self, faults: Iterable[Fault]) -> str:
        """Return the remedy for the faults of a clip, one or more."""
        kinds = {fault.kind for fault in faults}
        is_noisy = bool(kinds & {"clipping", "noise"})
        is_wild = is_noisy or not kinds & {"silence", "dead silence", "level"}
        blamed = [*(() if is_noisy else self.tamer), *(self.wilder if is_wild else ())]
        left_out = [f"leave out {' and '.join(blamed)}"] if blamed else []
        if self.is_undertrained:  # no other setting replaces a longer training
            return "; ".join([*left_out, self.train_longer])
        if left_out:
            return left_out[0]
        cooler = ["lower --temperature"] if kinds <= {"clipping", "noise"} else []
        return ", or ".join([*cooler, *(["try --best-of 8"] * (not self.is_best)), self.train_longer])

    def _names(self) -> str:
        return _name(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} to {self.paths[-1]}"


def _name(path: str) -> str:
    return "standard output" if path == "-" else path
