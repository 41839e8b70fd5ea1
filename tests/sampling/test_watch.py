"""The watch over what is generated, on signals whose faults are known and on recordings, which have none."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavegen.audio.quantize import Quantizer
from wavegen.sampling.watch import Fault, Watch, remedy, unpredictable_db

RATE_HZ = 16000
SPEECH = sorted((Path(__file__).parent.parent / "data" / "speech").glob("*.flac"))
QUANTIZERS = [Quantizer(), Quantizer("linear", 256), Quantizer("linear", 65536), Quantizer("mu_law", 1024)]


def seconds(n):
    return np.arange(round(n * RATE_HZ)) / RATE_HZ


def tone(n, amplitude=0.3):
    return (amplitude * np.sin(2 * np.pi * 220 * seconds(n))).astype(np.float32)


def hiss(n, rms=0.2, seed=0):
    return (rms * np.random.default_rng(seed).standard_normal(len(seconds(n)))).astype(np.float32).clip(-1, 1)


def faults(clip, chunk=1600):
    watch = Watch(RATE_HZ)
    for begin in range(0, len(clip), chunk):
        watch.hear(clip[None, begin : begin + chunk])
    return watch.faults()


FAULTY = {
    "noise": hiss(3.0),
    "clipping": np.sign(tone(3.0)),
    "dead silence": np.zeros(3 * RATE_HZ, np.float32),
}


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("kind", FAULTY)
def test_a_fault_is_found_where_it_is(kind, quantizer):
    clip = np.concatenate([tone(1.5), FAULTY[kind], tone(1.0)])
    (fault,) = faults(quantizer.decode(quantizer.encode(clip)))
    assert fault.kind == kind
    assert fault.start_seconds == pytest.approx(1.5, abs=0.11)
    assert fault.seconds == pytest.approx(3.0, abs=0.11)


def test_all_stretches_count_together_from_the_first_on():
    clip = np.concatenate([tone(1), hiss(2), tone(1), hiss(1.5, seed=1), np.zeros(40000, np.float32), tone(1)])
    assert faults(clip) == [Fault("dead silence", pytest.approx(5.5), pytest.approx(2.5)), Fault("noise", 1.0, 3.5)]


def test_what_stands_still_is_silent_at_any_height():
    assert faults(np.full(3 * RATE_HZ, 0.4, np.float32)) == [Fault("dead silence", 0.0, 3.0)]


@pytest.mark.parametrize("class_", [127, 128, 129])
def test_the_classes_around_silence_are_silent(class_):
    flickering = np.random.default_rng(0).choice([128, class_], 3 * RATE_HZ)
    assert [fault.kind for fault in faults(Quantizer().decode(flickering))] == ["dead silence"]


def test_a_short_clip_without_any_sound_is_silent_too():
    assert faults(np.zeros(RATE_HZ // 2, np.float32)) == [Fault("dead silence", 0.0, 0.5)]
    assert faults(np.concatenate([np.zeros(RATE_HZ, np.float32), tone(0.1)])) == []
    assert faults(np.zeros(10, np.float32)) == [], "less than a piece is not judged"


@pytest.mark.parametrize(
    "clip",
    [
        np.concatenate([tone(1), np.zeros(int(1.8 * RATE_HZ), np.float32), tone(1)]),  # a pause
        np.concatenate([tone(1), hiss(0.8), tone(1)]),  # a crash cymbal
        tone(3, amplitude=0.98),
        hiss(3, rms=0.05),  # rain
        np.tanh(3 * tone(3, 1.0)) * 0.98,
    ],
    ids=["pause", "crash", "loud tone", "rain", "distortion"],
)
def test_what_recordings_have_is_no_fault(clip):
    assert faults(clip) == []


def test_recorded_speech_has_no_faults():
    assert len(SPEECH) > 100
    for path in SPEECH:
        clip, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE_HZ
        assert faults(clip) == [], path.name
        assert faults(np.clip(4 * clip, -0.98, 0.98)) == [], f"{path.name}, 12 dB louder"


@pytest.mark.parametrize("chunk", [1, 777, 1600, 100_000])
def test_chunks_change_nothing(chunk):
    clip = np.concatenate([tone(0.35), np.sign(tone(1.2)), hiss(1.3), np.zeros(36000, np.float32)])
    assert len(faults(clip)) == 3
    assert faults(clip, chunk) == faults(clip)


def test_each_kind_is_told_once_for_each_clip_when_it_is_found():
    clips = np.stack([tone(6), np.concatenate([tone(1), hiss(2), tone(1), hiss(2)])])
    watch, told = Watch(RATE_HZ, 2), []
    for begin in range(0, clips.shape[1], 1600):
        told += [(begin, clip, fault) for clip, fault in watch.hear(clips[:, begin : begin + 1600])]
    assert told == [(19 * 1600, 1, Fault("noise", 1.0, 1.0))]
    assert watch.faults(0) == []
    assert watch.faults(1) == [Fault("noise", 1.0, 4.0)]


def test_what_it_remembers_does_not_grow():
    watch = Watch(RATE_HZ)
    for seed in range(50):
        watch.hear(hiss(1.23, seed=seed)[None])
    held = sum(value.size for value in vars(watch).values() if isinstance(value, np.ndarray))
    assert held < RATE_HZ // 5


def test_what_cannot_be_predicted_of_a_filtered_noise_is_the_noise_that_went_in():
    """x[t] = 1.6 x[t-1] - 0.9 x[t-2] + e[t]: loud, but its innovation is e (here at -30 dB)."""
    noise = hiss(2, rms=10 ** (-30 / 20)).astype(np.float64)
    clip = np.zeros_like(noise)
    for t in range(2, len(noise)):
        clip[t] = 1.6 * clip[t - 1] - 0.9 * clip[t - 2] + noise[t]
    assert 20 * np.log10(clip.std()) > -20
    found = unpredictable_db(clip.astype(np.float32).reshape(-1, 1600))
    assert found.mean() == pytest.approx(-30, abs=0.3)
    assert unpredictable_db(tone(0.1)[None])[0] < -100


def test_the_remedy_heats_what_is_silent_and_cools_what_is_loud():
    silence, noise = Fault("dead silence", 0, 3), Fault("noise", 0, 3)
    assert remedy([silence]) == "raise --temperature, or try --best-of 8, or train longer"
    assert remedy([noise], is_best=True) == "lower --temperature, or train longer"
    assert remedy([silence, noise]) == "try --best-of 8, or train longer"
    assert str(Fault("dead silence", 1.2, 2.3)) == "2.3 s of dead silence from 1.2 s on"
