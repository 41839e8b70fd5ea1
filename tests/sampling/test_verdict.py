"""The verdict on what is generated, on signals whose faults are known and on recordings, which have none."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import prepare
from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation
from wavegen.sampling.verdict import MOST_FRAMES, Fault, Verdict, in_words, unpredictable_db

RATE_HZ = 16000
SPEECH = sorted((Path(__file__).parent.parent / "data" / "speech").glob("*.flac"))
QUANTIZERS = [Quantizer(), Quantizer("linear", 256), Quantizer("linear", 65536), Quantizer("mu_law", 1024)]


def seconds(n):
    return np.arange(round(n * RATE_HZ)) / RATE_HZ


def tone(n, amplitude=0.3, hz=220):
    return (amplitude * np.sin(2 * np.pi * hz * seconds(n))).astype(np.float32)


def hiss(n, rms=0.2, seed=0):
    return (rms * np.random.default_rng(seed).standard_normal(len(seconds(n)))).astype(np.float32).clip(-1, 1)


def silence(n):
    return np.zeros(round(n * RATE_HZ), np.float32)


def faults(clip, chunk=1600, recordings=None):
    verdict = Verdict(RATE_HZ, recordings=recordings)
    for begin in range(0, len(clip), chunk):
        verdict.update(clip[None, begin : begin + chunk])
    return verdict.faults()


def run(kind, start, length, severity):
    return Fault(kind, f"{length:.1f} s of {kind} from {start:.1f} s on", pytest.approx(severity))


# --- without a profile: absolute rules -----------------------------------------------------------------------------

FAULTY = {"noise": hiss(3.0), "clipping": np.sign(tone(3.0)), "dead silence": silence(3.0)}


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("kind", FAULTY)
def test_a_fault_is_found_where_it_is(kind, quantizer):
    clip = np.concatenate([tone(1.5), FAULTY[kind], tone(1.0)])
    (fault,) = faults(quantizer.decode(quantizer.encode(clip)))
    assert fault.kind == kind
    length, start = (float(fault.words.split()[i]) for i in (0, -3))
    assert start == pytest.approx(1.5, abs=0.11)
    assert length == pytest.approx(3.0, abs=0.11)


def test_all_runs_count_together_from_the_first_on():
    clip = np.concatenate([tone(1), hiss(2), tone(1), hiss(1.5, seed=1), silence(2.5), tone(1)])
    assert faults(clip) == [run("dead silence", 5.5, 2.5, 1.25), run("noise", 1.0, 3.5, 3.5)]


def test_a_constant_is_silent_at_any_height():
    assert faults(np.full(3 * RATE_HZ, 0.4, np.float32)) == [run("dead silence", 0.0, 3.0, 1.5)]


@pytest.mark.parametrize("class_", [127, 128, 129])
def test_the_classes_around_silence_are_silent(class_):
    flickering = np.random.default_rng(0).choice([128, class_], 3 * RATE_HZ)
    assert [fault.kind for fault in faults(Quantizer().decode(flickering))] == ["dead silence"]


def test_a_short_clip_without_any_sound_is_silent_too():
    assert faults(silence(0.5)) == [run("dead silence", 0.0, 0.5, 1.0)]
    assert faults(np.concatenate([silence(1), tone(0.1)])) == []
    assert faults(np.zeros(10, np.float32)) == [], "less than a frame is not judged"


@pytest.mark.parametrize(
    "clip",
    [
        np.concatenate([tone(1), silence(1.8), tone(1)]),  # a pause
        np.concatenate([tone(1), hiss(0.8), tone(1)]),  # a crash cymbal
        tone(3, amplitude=0.98),
        hiss(3, rms=0.05),  # rain
        np.tanh(3 * tone(3, 1.0)) * 0.98,
    ],
    ids=["pause", "crash", "loud tone", "rain", "distortion"],
)
def test_what_recordings_have_is_no_fault(clip):
    assert faults(clip) == []


@pytest.mark.parametrize("chunk", [1, 777, 1600, 100_000])
@pytest.mark.parametrize("with_profile", [False, True])
def test_chunks_change_nothing(chunk, with_profile):
    recordings = profile() if with_profile else None
    clip = np.concatenate([tone(0.35), np.sign(tone(1.2)), hiss(1.3), silence(2.25)])
    assert len(faults(clip, recordings=recordings)) >= 3
    assert faults(clip, chunk, recordings) == faults(clip, recordings=recordings)


def test_each_kind_is_returned_once_for_each_clip_when_it_is_found():
    clips = np.stack([tone(6), np.concatenate([tone(1), hiss(2), tone(1), hiss(2)])])
    verdict, found = Verdict(RATE_HZ, 2), []
    for begin in range(0, clips.shape[1], 1600):
        found += [(begin, clip, fault) for clip, fault in verdict.update(clips[:, begin : begin + 1600])]
    assert found == [(19 * 1600, 1, run("noise", 1.0, 1.0, 1.0))]
    assert verdict.faults(0) == []
    assert verdict.faults(1) == [run("noise", 1.0, 4.0, 4.0)]


def test_what_cannot_be_predicted_of_a_filtered_noise_is_the_noise_that_went_in():
    """x[t] = 1.6 x[t-1] - 0.9 x[t-2] + e[t]: loud, but its innovation is e (here at -30 dB)."""
    noise = hiss(2, rms=10 ** (-30 / 20)).astype(np.float64)
    clip = np.zeros_like(noise)
    for t in range(2, len(noise)):
        clip[t] = 1.6 * clip[t - 1] - 0.9 * clip[t - 2] + noise[t]
    assert 20 * np.log10(clip.std()) > -20
    found = unpredictable_db(clip.astype(np.float32).reshape(-1, 1600))
    assert found.mean() == pytest.approx(-30, abs=0.3)
    assert unpredictable_db(tone(0.1)[None])[0] <= -100


# --- against the profile of recordings ------------------------------------------------------------------------------


@cache
def speech():
    """The recorded speech, prepared as usual, and joined into clips of about ten seconds."""
    preparation = Preparation(RATE_HZ, True, 50.0, 1.0, "peak", 30.0)
    clips = [prepare(preparation, soundfile.read(path, dtype="float32")[0]) for path in SPEECH]
    assert len(clips) > 100
    return clips


@cache
def profile():
    return RecordingProfile.of(speech(), RATE_HZ)


def kinds(clip):
    return [fault.kind for fault in faults(clip, recordings=profile())]


def of_speech(n):
    """Return some seconds of speech."""
    return np.concatenate(speech()[:10])[: round(n * RATE_HZ)]


def test_recorded_speech_has_no_fault_against_its_own_profile():
    for path, clip in zip(SPEECH, speech(), strict=True):
        assert faults(clip, recordings=profile()) == [], path.name


def test_recorded_speech_has_no_fault_without_a_profile():
    for path, clip in list(zip(SPEECH, speech(), strict=True))[::4]:
        assert faults(clip) == [], path.name


def test_a_quiet_clip_is_a_fault_of_level():
    (fault,) = faults(0.03 * of_speech(5), recordings=profile())
    assert fault.kind == "level"
    assert fault.words.endswith("dB quieter than the recordings")
    assert 20 <= float(fault.words.split()[0]) <= 40
    softer = faults(0.1 * of_speech(5), recordings=profile())[0]
    assert 1 <= softer.severity < fault.severity


def test_a_loud_clip_is_a_fault_of_level():
    found = {fault.kind: fault for fault in faults(np.sign(tone(5, hz=400)), recordings=profile())}
    assert {"level", "clipping"} <= set(found)
    assert found["level"].words.endswith("dB louder than the recordings")


def test_a_clip_without_sound_is_silent_from_end_to_end():
    for clip in (silence(5), np.full(5 * RATE_HZ, 0.3, np.float32), silence(0.5)):
        assert faults(clip, recordings=profile()) == [Fault("silence", "silence from end to end", 10.0)]


def test_a_clip_that_falls_silent_is_a_fault_of_silence():
    (fault,) = faults(np.concatenate([of_speech(2), silence(8)]), recordings=profile())
    assert fault.kind == "silence"
    share, words = fault.words.split("% silent, recordings ")
    assert float(share) == pytest.approx(80, abs=4)
    assert words == f"{100 * profile().whole.silent_share:.0f}%"


def test_runaway_noise_is_bright_too():
    assert {"noise", "spectrum"} <= set(kinds(hiss(5)))


@pytest.mark.parametrize(("hz", "word"), [(5000, "brighter"), (60, "duller")])
def test_a_wrong_spectrum_is_reported_in_hertz(hz, word):
    envelope = np.convolve(np.abs(of_speech(5)), np.full(800, 1 / 800), "same")
    clip = (envelope * np.sin(2 * np.pi * hz * seconds(5))).astype(np.float32)
    found = [fault for fault in faults(clip, recordings=profile()) if fault.kind == "spectrum"]
    assert [fault.words.split(" (")[0] for fault in found] == [f"{word} than the recordings"]
    assert f"theirs {profile().whole.centroid_hz:,.0f} Hz" in found[0].words
    assert found[0].severity > 1


def test_a_drone_as_loud_as_speech_is_a_fault_of_levels():
    amplitude = np.sqrt(2) * 10 ** (profile().whole.loud_db / 20)
    assert "levels" in kinds(tone(5, amplitude, hz=round(profile().whole.centroid_hz)))


def test_of_a_short_clip_the_level_alone_is_judged_and_less_strictly():
    amplitude = np.sqrt(2) * 10 ** (profile().lowest.loud_db / 20)
    assert kinds(tone(1, amplitude / 10 ** (10 / 20), hz=5000)) == []
    assert kinds(tone(1, amplitude / 10 ** (14 / 20), hz=5000)) == ["level"]
    assert kinds(tone(1, 0.98, hz=5000)) == []


def test_what_it_remembers_of_an_endless_clip_is_bounded(monkeypatch):
    """At a low rate, and a minute at most instead of ten; that the second half is silent is still seen."""
    most = MOST_FRAMES // 10
    monkeypatch.setattr("wavegen.sampling.verdict.MOST_FRAMES", most)
    rate_hz, verdict = 640, Verdict(640, 2, profile())
    sizes = []
    for block in range(8):
        sound = hiss(2.5, rms=0.05 if block < 4 else 0.0, seed=block)[: rate_hz * 60]
        verdict.update(np.stack([sound, np.zeros_like(sound)]))
        sizes.append(sum(part.level_db.size for part in verdict._remembered))
    assert verdict._n_frames == 8 * most
    assert max(sizes) <= 2 * (most + 600)
    assert verdict._rest.size < rate_hz
    silent = [fault for fault in verdict.faults(0) if fault.kind == "silence"]
    assert [fault.words.split()[0] for fault in silent] == ["50%"]
    assert in_words(verdict.faults(1)) == "silence from end to end"


def test_a_profile_survives_a_checkpoint():
    stored = json.loads(json.dumps(profile().as_dict()))
    assert RecordingProfile.from_dict(stored) == profile()
    clip = 0.05 * of_speech(5)
    assert faults(clip, recordings=RecordingProfile.from_dict(stored)) == faults(clip, recordings=profile())


def test_recordings_that_begin_with_digital_silence_have_a_profile_to_judge_by():
    silent = np.concatenate([np.zeros(10 * RATE_HZ, np.float32), tone(10)])
    profile = RecordingProfile.of([silent], RATE_HZ)
    assert profile.lowest.centroid_hz == 0
    verdict = Verdict(RATE_HZ, 1, profile)
    verdict.update(tone(5)[None])
    assert [fault.kind for fault in verdict.faults()] == []


def test_a_clip_is_compared_with_the_recordings_of_its_label():
    recordings = RecordingProfile.of([tone(6, 0.5)] * 3, RATE_HZ)
    recordings.labels["quiet"] = RecordingProfile.of([tone(6, 0.005)] * 3, RATE_HZ)
    verdict = Verdict(RATE_HZ, 2, recordings, ["quiet", None])
    verdict.update(np.stack([tone(6, 0.005)] * 2))
    assert verdict.faults(0) == []
    assert [fault.kind for fault in verdict.faults(1)] == ["level"]


def test_a_severity_is_a_number_of_python():
    assert repr(faults(hiss(3.0))[0]).endswith("severity=3.0)")
