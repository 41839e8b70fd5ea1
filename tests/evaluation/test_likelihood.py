import math

import numpy as np
import pytest
import torch

from wavegen.data.conditioning import ClipCondition
from wavegen.evaluation import likelihood as module
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.layers import Condition

SILENCE = 8
LENGTHS = [1, 2, 7, 8, 9, 50, 131]


def clips_of(lengths, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 16, length).astype(np.uint8) for length in lengths]


def slow_bits(model, clip):
    """One sample after the other, each from the receptive field before it, with silence before the clip."""
    field = model.receptive_field
    heard = [SILENCE] * field + clip.tolist()
    bits = []
    for t, sample in enumerate(clip.tolist()):
        with torch.no_grad():
            logits = model(torch.tensor([heard[t : t + field]]))[0, 0].tolist()
        bits.append((math.log(math.fsum(map(math.exp, logits))) - logits[sample]) / math.log(2))
    return math.fsum(bits)


@pytest.mark.parametrize(("kernel_size", "dilations"), [(2, [1, 2, 4]), (3, [1, 3, 2])])
def test_bits_are_the_sum_over_samples(random_model, kernel_size, dilations):
    model = random_model(kernel_size=kernel_size, dilations=dilations, dtype=torch.float64)
    clips = clips_of(LENGTHS)
    assert model_bits(model, clips, SILENCE) == pytest.approx([slow_bits(model, clip) for clip in clips], rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 7, 50, 130, 131, 132])
def test_chunks_change_nothing(random_model, chunk, monkeypatch):
    model, clips = random_model(dtype=torch.float64), clips_of(LENGTHS)
    whole = model_bits(model, clips, SILENCE)
    monkeypatch.setattr(module, "CHUNK_TARGETS", chunk)
    heard = []
    assert model_bits(model, clips, SILENCE, heard.append) == pytest.approx(whole, rel=1e-12)
    assert sum(heard) == sum(LENGTHS), "every sample counts once"
    assert max(heard) <= chunk


@pytest.mark.parametrize("length", [1, 5, 8, 40])
def test_a_clip_after_a_past_costs_what_it_adds(random_model, length):
    """-log2 p(clip | past) = -log2 p(past, clip) + log2 p(past)"""
    model, (past, *clips) = random_model(dtype=torch.float64), clips_of([length, *LENGTHS])
    whole, alone = (model_bits(model, some, SILENCE) for some in ([np.append(past, clip) for clip in clips], [past]))
    found = model_bits(model, clips, SILENCE, past=past)
    assert found == pytest.approx([both - alone[0] for both in whole], rel=1e-9)


def test_a_clip_alone_and_among_others_is_the_same(random_model):
    model, clips = random_model(), clips_of(LENGTHS)
    assert [model_bits(model, [clip], SILENCE)[0] for clip in clips] == model_bits(model, clips, SILENCE)


def test_the_first_sample_is_predicted_from_silence(random_model):
    """The bits of all one-sample clips give a distribution, which depends on the class of silence."""
    model = random_model(dtype=torch.float64)
    bits = model_bits(model, [np.array([c], dtype=np.uint8) for c in range(16)], SILENCE)
    assert sum(2**-b for b in bits) == pytest.approx(1, rel=1e-12)
    other = model_bits(model, [np.array([0], dtype=np.uint8)], SILENCE + 1)
    assert other[0] != pytest.approx(bits[0], rel=1e-6)


def test_an_untrained_model_pays_log2_of_the_classes_for_each_sample(random_model):
    model = random_model()
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    assert model_bits(model, clips_of(LENGTHS), SILENCE) == pytest.approx([4.0 * n for n in LENGTHS], rel=1e-6)


@pytest.mark.parametrize(
    "kind",
    [{"n_labels": 2, "label_channels": 3}, {"n_labels": 2, "label_channels": 3, "frame_channels": 4, "upsampling": 2}],
)
@pytest.mark.parametrize("chunk", [7, 50, 1000])
def test_each_clip_is_scored_under_its_own_condition(random_model, monkeypatch, kind, chunk):
    model = random_model(dtype=torch.float64, **kind)
    monkeypatch.setattr(module, "CHUNK_TARGETS", chunk)
    rng, clips = np.random.default_rng(3), clips_of(LENGTHS)
    conditions = []
    for i, clip in enumerate(clips):
        frames = rng.normal(-5, 4, (-(-len(clip) // 6), 4)).astype(np.float32) if "frame_channels" in kind else None
        conditions.append(ClipCondition(np.eye(2, dtype=np.float32)[i % 2], frames, 6, kind.get("upsampling", 1)))

    def slow(clip, condition):
        field = model.receptive_field
        heard, bits = [SILENCE] * field + clip.tolist(), []
        for t, sample in enumerate(clip.tolist()):
            seen = Condition.of([condition.rows(t - field + 1, t + 1)], torch.device("cpu"))
            with torch.no_grad():
                logits = model(torch.tensor([heard[t : t + field]]), condition=seen)[0, 0]
            bits.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(sample))) / math.log(2))
        return math.fsum(bits)

    found = model_bits(model, clips, SILENCE, None, conditions)
    assert found == pytest.approx([slow(*pair) for pair in zip(clips, conditions, strict=True)], rel=1e-8)
    model.float()
    assert model_bits(model, clips, SILENCE, None, conditions) == pytest.approx(found, rel=1e-4), "the fused stack"
