"""Train a voice to follow loudness and pitch, and compare what is asked of it with what is heard.

    python tests/programs/follow_speech.py speech-en/ runs/follows 1000 [DRUM_LOOP ...]

Every third recording is taken. The rank correlations are means over held-out clips: of loudness over all frames, of
pitch over those in which both clips are voiced, for the right features and for those of the next clip. Then the voice
follows the loudness of each drum loop at one pitch, and the rank correlation of loudness is printed.
"""

import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile
from scipy.stats import spearmanr

import wavegen

RATE_HZ, HOP = 16000, 200
N_CLIPS = 20


def features(wave):
    """Return (F, 3): decibels below the loudest frame, octaves above 200 Hz, and whether the frame is voiced."""
    rms = librosa.feature.rms(y=wave, frame_length=800, hop_length=HOP)[0]
    hz, voiced, _ = librosa.pyin(
        wave, fmin=100, fmax=500, sr=RATE_HZ, frame_length=1024, hop_length=HOP, resolution=0.2
    )
    known = np.flatnonzero(voiced)
    octaves = np.log2(hz[known] / 200) if len(known) else [0.0]
    between = np.interp(np.arange(len(hz)), known if len(known) else [0], octaves)  # where nothing is voiced
    return np.stack([librosa.amplitude_to_db(rms, ref=np.max, top_db=60), between, voiced], axis=1)


def correlations(asked, clip):
    """Return the rank correlations of loudness and pitch, nan where there is too little to compare."""
    heard = features(clip)
    n = min(len(asked), len(heard))
    both = (asked[:n, 2] > 0.5) & (heard[:n, 2] > 0.5)
    pitch = spearmanr(asked[:n, 1][both], heard[:n, 1][both])[0] if both.sum() > 20 else np.nan
    return spearmanr(asked[:n, 0], heard[:n, 0])[0], pitch


def main(recordings, run, steps, *loops):
    """Train unless there is a run, then generate."""
    if not Path(run).exists():
        folder = Path(run).with_suffix(".recordings")
        folder.mkdir(parents=True)
        for path in sorted(Path(recordings).rglob("*.flac"))[::3]:
            wave, _ = librosa.load(path, sr=RATE_HZ)
            soundfile.write(folder / f"{path.stem}.wav", wave, RATE_HZ)
            np.save(folder / f"{path.stem}.npy", features(wave))
        keys = ["features.columns=auto", "features.upsampling=10", f"training.steps={steps}"]
        wavegen.train(folder, wavegen.load_config("small", keys), run=run)
    model = wavegen.load(run)
    clips = [clip for clip in model.clips.held_out() if len(clip.classes) > RATE_HZ][:N_CLIPS]
    asked = [clip.condition.frames[:] for clip in clips]
    right, others = [], []
    for i, wanted in enumerate(asked):
        (clip,) = model.generate(features=wanted, temperature=0.8, seed=i)
        right.append(correlations(wanted, clip))
        others.append(correlations(asked[i - 1], clip))
    print(f"{len(clips)} held-out clips, rank correlations of loudness and pitch:")
    print("right features:", np.nanmean(right, axis=0).round(2), "shuffled:", np.nanmean(others, axis=0).round(2))
    for path in loops:
        wave, _ = librosa.load(path, sr=RATE_HZ)
        wanted = features(wave)
        wanted[:, 1:] = 0, 1  # 200 Hz, voiced throughout
        (clip,) = model.generate(features=wanted, temperature=0.8, seed=0)
        print(f"{Path(path).stem}: loudness {correlations(wanted, clip)[0]:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
