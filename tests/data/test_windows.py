from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from clips import NumberedClip, numbered_clips
from wavegen.audio.frames import MIDDLE, SPREAD
from wavegen.data.conditioning import ClipCondition
from wavegen.data.windows import (
    FULL_POWER,
    MOST_BEGINNINGS,
    POWER_BLOCK,
    POWER_PART,
    Batch,
    ClipPowers,
    Order,
    WindowStream,
)
from wavegen.errors import DataError

SILENCE = -1  # no sample of these clips is


def past_of(sample, clips, field):
    """The receptive field before a sample: its own clip's past, behind silence."""
    (clip,) = (clip for clip in clips if clip.first <= sample < clip.first + clip.n_samples)
    past = np.arange(sample - field, sample)
    return np.where(past >= clip.first, past, SILENCE)


def epoch_of(stream, number=0):
    return stream.batch(number * stream.windows_per_epoch, stream.windows_per_epoch)


def cut(batch, rows):
    return Batch(batch.inputs[rows], batch.targets[rows], batch.is_real[rows])


def assert_equal(a, b):
    for name in ("inputs", "targets", "is_real"):
        assert np.array_equal(getattr(a, name), getattr(b, name))


def random_corpora(n, seed):
    """(clip lengths, receptive field, window targets): one sample to several windows, windows beyond the whole tape."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        field, targets = int(rng.integers(2, 40)), int(rng.integers(1, 60))
        longest = int(rng.choice([1, 3, field, targets, 5 * targets]))
        lengths = rng.integers(1, longest + 1, rng.integers(1, 8)).tolist()
        yield lengths, field, targets * int(rng.choice([1, 1, 1, 20]))


CORPORA = [
    ([1], 2, 1),
    ([1], 30, 8),
    ([100], 8, 16),  # a single clip
    ([7], 20, 16),  # shorter than a window and than the field
    ([5, 3], 4, 500),  # a window longer than the whole tape
    ([12, 12], 4, 16),  # the tape is a whole number of windows
    *random_corpora(40, seed=1),
]


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA)
def test_an_epoch_visits_every_target_once_with_its_own_past(lengths, field, n_targets):
    clips = numbered_clips(lengths)
    stream = WindowStream(clips, field, n_targets, SILENCE, seed=3)
    for number in (0, 1, 5):
        batch = epoch_of(stream, number)
        assert batch.inputs.shape == (stream.windows_per_epoch, field - 1 + n_targets)
        assert batch.targets.shape == batch.is_real.shape == (stream.windows_per_epoch, n_targets)
        assert sorted(batch.targets[batch.is_real].tolist()) == list(range(sum(lengths)))
        assert (batch.targets[~batch.is_real] == 0).all()  # a class all the same
        for row, i in zip(*np.nonzero(batch.is_real), strict=True):
            seen = batch.inputs[row, i : i + field]
            assert np.array_equal(seen, past_of(batch.targets[row, i], clips, field))


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA)
def test_the_inputs_are_the_targets_one_sample_later(lengths, field, n_targets):
    batch = epoch_of(WindowStream(numbered_clips(lengths), field, n_targets, SILENCE, seed=3))
    later = batch.inputs[:, field:]
    real = batch.is_real[:, :-1]
    assert np.array_equal(later[real], batch.targets[:, :-1][real])


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA[:12])
def test_an_item_is_a_function_of_seed_and_number(lengths, field, n_targets):
    """Whatever the order of the calls, and however the items are cut into batches; two epochs and a half."""

    def fresh():
        return WindowStream(numbered_clips(lengths), field, n_targets, SILENCE, seed=9)

    n = fresh().windows_per_epoch * 5 // 2 + 1
    whole = fresh().batch(0, n)
    stream = fresh()
    for i in np.random.default_rng(2).permutation(n).tolist():
        assert_equal(stream.batch(i, 1), cut(whole, slice(i, i + 1)))
    for first in range(0, n, 3):
        assert_equal(stream.batch(first, min(3, n - first)), cut(whole, slice(first, first + 3)))
    far = 10**9
    assert_equal(stream.batch(far, 2), cut(fresh().batch(far - 1, 4), slice(1, 3)))


@pytest.mark.parametrize("lengths", [[60_000], [9000, 21_000, 1500, 1, 28_000]], ids=["one clip", "five clips"])
def test_epochs_and_seeds_cut_and_shuffle_differently(lengths):
    """Chance of a false alarm: two epochs begin at the same place of 997 with 0.1%, 28 pairs of them; fixed seeds."""
    clips = numbered_clips(lengths)
    streams = [WindowStream(clips, 10, 997, SILENCE, seed) for seed in (0, 1, 2**62, 2**63 - 1)]
    epochs = [epoch_of(stream, number).targets for stream in streams for number in range(2)]
    for a, b in combinations(epochs, 2):
        assert not np.array_equal(a, b)
        windows = [{tuple(row) for row in epoch.tolist()} for epoch in (a, b)]
        assert len(windows[0] & windows[1]) < len(a) / 2, "the same windows in another order only"


def test_windows_are_visited_in_a_random_order():
    """Chance of a false alarm: five of 60 windows follow on their neighbour by chance with < 1%; the seed is fixed."""
    batch = epoch_of(WindowStream(numbered_clips([60_000]), 10, 997, SILENCE, seed=1))
    begins = batch.targets[:, 0]
    assert (np.diff(begins) == 997).sum() < 5


def test_clips_lie_in_a_random_order_on_the_tape():
    """Seen through a window that holds the whole tape, which is a ring: turned until clip 0 comes first."""
    stream = WindowStream(numbered_clips([1] * 40), 10, 5000, SILENCE, seed=1)
    orders = []
    for number in range(3):
        batch = epoch_of(stream, number)
        order = batch.targets[batch.is_real].tolist()
        orders.append(order[order.index(0) :] + order[: order.index(0)])
    assert len({tuple(order) for order in [*orders, range(40)]}) == 4


def test_the_tape_of_long_clips_has_next_to_no_padding():
    stream = WindowStream(numbered_clips([5000, 7000]), 64, 256, SILENCE, seed=0)
    assert stream.tape_length == 5000 + 7000 + 2 * 64
    assert stream.windows_per_epoch == -(-stream.tape_length // 256)


# --- clips that follow another one ---------------------------------------------------------------------------------


def order_of(stream, number=0):
    """The clips of an epoch in their order on the tape, and what is before each: an end's clip, or None for silence.

    Seen through the windows: the input before a clip's first target is silence or the last sample of another clip.
    """
    firsts = {clip.first: i for i, clip in enumerate(stream.clips)}
    lasts = {clip.first + clip.n_samples - 1: i for i, clip in enumerate(stream.clips)}
    batch = epoch_of(stream, number)
    before = {}
    for row, i in zip(*np.nonzero(batch.is_real & np.isin(batch.targets, list(firsts))), strict=True):
        past = batch.inputs[row, i : i + stream.receptive_field]
        clip = firsts[int(batch.targets[row, i])]
        before[clip] = None if past[-1] == SILENCE else lasts[int(past[-1])]
        assert before[clip] is not None or (past == SILENCE).all()
    return before


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA)
@pytest.mark.parametrize("following", [0.5, 0.99])
def test_every_target_is_visited_once_whatever_follows(lengths, field, n_targets, following):
    """Its own clip is before it, then silence or the end of others."""
    clips = numbered_clips(lengths)
    stream = WindowStream(clips, field, n_targets, SILENCE, seed=3, order=Order(following))
    for number in (0, 1, 5):
        batch = epoch_of(stream, number)
        assert len(batch.targets) == stream.windows_per_epoch
        assert sorted(batch.targets[batch.is_real].tolist()) == list(range(sum(lengths)))
        for row, i in zip(*np.nonzero(batch.is_real), strict=True):
            seen, own = batch.inputs[row, i : i + field], past_of(batch.targets[row, i], clips, field)
            is_own = own != SILENCE
            assert np.array_equal(seen[is_own], own[is_own])
            others = seen[~is_own]
            steps = np.diff(others[others != SILENCE])  # whole clips one behind the other
            assert ((steps == 1) | np.isin(others[others != SILENCE][1:], [clip.first for clip in clips])).all()


@pytest.mark.parametrize(("following", "n_after_silence"), [(0.0, 40), (0.25, 30), (0.75, 10), (0.99, 1)])
def test_the_share_of_clips_that_follow_is_the_same_in_every_epoch(following, n_after_silence):
    stream = WindowStream(numbered_clips([30] * 40), 16, 64, SILENCE, seed=1, order=Order(following))
    befores = [order_of(stream, number) for number in range(4)]
    for before in befores:
        assert len(before) == 40
        assert list(before.values()).count(None) == n_after_silence
    assert stream.tape_length == 40 * 30 + n_after_silence * 16
    assert len({tuple(sorted(before.items(), key=str)) for before in befores}) == (1 if following == 0 else 4)


def test_other_clips_begin_after_silence_in_other_epochs():
    """Chance of a false alarm: 1e-5 for a clip not to be among 10 of 40 in 40 epochs, for 40 clips; a fixed seed."""
    stream = WindowStream(numbered_clips([20] * 40), 8, 400, SILENCE, seed=2, order=Order(0.75))
    seen = [{clip for clip, before in order_of(stream, number).items() if before is None} for number in range(40)]
    assert set().union(*seen) == set(range(40))


def test_a_clip_follows_the_end_of_another_of_its_label():
    rng = np.random.default_rng(4)
    labels = [*rng.choice(["anna", "bert", "cleo"], 30).tolist(), "alone"]
    stream = WindowStream(numbered_clips([25] * 31), 12, 50, SILENCE, seed=5, order=Order(0.9, labels))
    assert stream.n_after_silence == 4
    for number in range(5):
        before = order_of(stream, number)
        follows = [(clip, other) for clip, other in before.items() if other is not None]
        assert len(follows) == 27
        assert all(clip != other and labels[clip] == labels[other] for clip, other in follows)
        assert before[30] is None


def test_labels_change_nothing_where_no_clip_follows():
    clips, labels = numbered_clips([50, 20, 70, 30]), ["b", "a", "b", None]
    plain = epoch_of(WindowStream(clips, 10, 16, SILENCE, seed=3))
    assert_equal(epoch_of(WindowStream(clips, 10, 16, SILENCE, seed=3, order=Order(labels=labels))), plain)


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA)
@pytest.mark.parametrize("following", [0.0, 0.75])
def test_beginnings_stand_behind_silence_and_the_rest_is_visited_once(lengths, field, n_targets, following):
    clips, beginning = numbered_clips(lengths), 4
    order = Order(following, beginnings=0.3, beginning=beginning)
    stream = WindowStream(clips, field, n_targets, SILENCE, seed=3, order=order)
    again = {clip.first + place for clip in clips if clip.n_samples >= beginning for place in range(beginning)}
    for number in (0, 2):
        epoch = epoch_of(stream, number)
        targets = epoch.targets[epoch.is_real]
        samples, visits = np.unique(targets, return_counts=True)
        assert len(samples) == sum(lengths)
        assert set(samples[visits > 1]) <= again
        assert visits.max() <= 1 + MOST_BEGINNINGS
        assert len(targets) == sum(lengths) + beginning * stream.n_beginnings
        assert len(targets) == stream.n_targets(number * stream.windows_per_epoch, stream.windows_per_epoch)
        # every further visit of a clip's first sample has nothing but silence in its past
        firsts = [clip.first for clip in clips]
        at_first = np.argwhere(np.isin(epoch.targets, firsts) & epoch.is_real)
        silent = sum(
            bool((epoch.inputs[row, place : place + field] == SILENCE).all()) for row, place in at_first.tolist()
        )
        assert silent >= stream.n_beginnings + stream.n_after_silence


def test_beginnings_take_their_share_of_the_tape_and_change_with_the_epoch():
    clips = numbered_clips([400] * 50)
    stream = WindowStream(clips, 20, 64, SILENCE, seed=1, order=Order(0.5, beginnings=0.1, beginning=12))
    without = WindowStream(clips, 20, 64, SILENCE, seed=1, order=Order(0.5))
    assert stream.tape_length / without.tape_length == pytest.approx(1.1, abs=0.01)
    firsts = [clip.first for clip in clips]
    visits = [
        np.bincount(epoch.targets[epoch.is_real], minlength=20_000)[firsts]
        for epoch in (epoch_of(stream, 0), epoch_of(stream, 1))
    ]
    assert visits[0].sum() == visits[1].sum() == 50 + stream.n_beginnings
    assert (visits[0] != visits[1]).any()
    assert visits[0].max() <= 1 + MOST_BEGINNINGS


def test_few_clips_do_not_begin_more_often_than_a_few_times():
    stream = WindowStream(numbered_clips([10_000]), 20, 64, SILENCE, seed=1, order=Order(beginnings=0.5, beginning=12))
    assert stream.n_beginnings == MOST_BEGINNINGS


@pytest.mark.parametrize("n_targets", [7, 64, 30_000])
def test_few_long_clips_begin_after_their_pauses_too(n_targets):
    field, beginning, clips = 20, 12, numbered_clips([10_000, 400])
    onsets = [0, 3000, 7000, 9990], [150]  # the last of the first clip has no room
    two = [ClipCondition(label) for label in np.eye(2, dtype=np.float32)]
    order = Order(beginnings=0.5, beginning=beginning, after_pauses=onsets.__getitem__)
    stream = WindowStream(clips, field, n_targets, SILENCE, 1, lambda clip: two[clip.first > 0], order)
    assert stream.n_beginnings == 5 * MOST_BEGINNINGS
    for number in range(3):
        epoch = epoch_of(stream, number)
        targets = epoch.targets[epoch.is_real]
        visits = np.bincount(targets, minlength=10_400)
        begun = [first + place for first in (0, 3000, 7000, 10_000, 10_150) for place in range(beginning)]
        assert (visits[begun] == 1 + MOST_BEGINNINGS).all()
        assert (np.delete(visits, begun) == 1).all()
        assert len(targets) == stream.n_targets(number * stream.windows_per_epoch, stream.windows_per_epoch)
        tables = np.arange(len(epoch.inputs))[:, None]
        # the step that predicts a target is the one of the input before it
        labels = epoch.condition.labels[tables, epoch.condition.row_of].argmax(axis=-1)[:, field - 1 :]
        assert np.array_equal(labels[epoch.is_real], targets >= 10_000)
        for onset in (3000, 7000, 10_150):  # once behind what was before it, else behind silence
            pasts = [epoch.inputs[row, at : at + field] for row, at in np.argwhere(epoch.targets == onset)]
            assert sum((past == SILENCE).all() for past in pasts) == MOST_BEGINNINGS
            assert sum((past == np.arange(onset - field, onset)).all() for past in pasts) == 1


def test_where_clips_are_many_their_pauses_are_not_asked_for():
    clips, order = numbered_clips([400] * 50), Order(0.5, beginnings=0.1, beginning=12)
    plain = WindowStream(clips, 20, 64, SILENCE, seed=1, order=order)
    asked = WindowStream(clips, 20, 64, SILENCE, seed=1, order=replace(order, after_pauses=pytest.fail))
    assert_equal(epoch_of(asked), epoch_of(plain))


def loud_and_quiet(lengths, seed=0):
    """Amplitudes of all samples of numbered clips: blocks of one amplitude, some 60 dB quieter than the others."""
    rng = np.random.default_rng(seed)

    def blocks(n):
        return rng.uniform(0.2, 0.9, n) * np.where(rng.random(n) < 0.3, 1e-3, 1)

    each = [np.repeat(blocks(-(-length // POWER_BLOCK)), POWER_BLOCK)[:length] for length in lengths]
    return np.concatenate(each).astype(np.float32)


def powers_of(clips, amplitudes):
    return ClipPowers([clip.classes() for clip in clips], amplitudes)


@pytest.mark.parametrize(
    ("lengths", "n_targets"),
    [
        ([9000, 4000, 3333, 256, 100, 1], 300),
        ([20_000], 1024),
        ([1500] * 12, 97),  # windows shorter than a block of summed power
        ([2000, 900], 5000),  # a window longer than the whole tape
    ],
)
def test_mean_powers_are_those_of_the_windows_targets(lengths, n_targets):
    clips, amplitudes = numbered_clips(lengths), loud_and_quiet(lengths)
    order = Order(0.5, beginnings=0.2, beginning=12, after_pauses=lambda clip: [50])
    weighted = replace(order, quiet_weight=0.5, powers=powers_of(clips, amplitudes))
    stream = WindowStream(clips, 40, n_targets, SILENCE, 1, order=weighted)
    found = stream._mean_powers(stream._epoch(2), weighted.powers) / FULL_POWER
    plain = WindowStream(clips, 40, n_targets, SILENCE, 1, order=order)  # visits each window once
    batch = cut(epoch_of(plain, 2), np.argsort(plain._epoch(2).windows))
    powers = np.where(batch.is_real, np.square(amplitudes[batch.targets]), 0).sum(axis=1)
    np.testing.assert_allclose(found, powers / np.maximum(batch.is_real.sum(axis=1), 1), atol=2 / FULL_POWER)


@pytest.mark.parametrize("n", [1, POWER_BLOCK, POWER_BLOCK + 1, POWER_PART, POWER_PART + 10])
def test_powers_of_clips_add_up(n):
    amplitudes = np.array([0, 0.5, 1], dtype=np.float32)
    powers = ClipPowers([np.full(n, 1), np.full(100, 2)], amplitudes)
    assert powers.before(np.array([0]), np.array([0])) == 0
    assert powers.before(np.array([0]), np.array([n])) == pytest.approx(n * FULL_POWER / 4)
    start, middle, end = powers.before(np.array([1, 1, 1]), np.array([0, 30, 100]))
    assert (middle - start, end - start) == pytest.approx((30 * FULL_POWER, 100 * FULL_POWER))


def visits_of(stream, n_samples, epochs):
    """Count the visits of each sample as a target in each of the first epochs."""
    each = (epoch_of(stream, number) for number in range(epochs))
    return np.array([np.bincount(epoch.targets[epoch.is_real], minlength=n_samples) for epoch in each])


def test_quiet_windows_are_visited_by_their_weight_others_in_each_epoch():
    n_samples, weight = 102_400, 0.4
    stretches = np.repeat(np.arange(8) % 4 == 3, 12_800)  # a quarter is 40 dB quieter
    amplitudes = np.where(stretches, 0.005, 0.5).astype(np.float32)
    clips = numbered_clips([70_000, 32_400])
    order = Order(quiet_weight=weight, powers=powers_of(clips, amplitudes))
    stream = WindowStream(clips, 10, 100, SILENCE, 3, order=order)
    visits = visits_of(stream, n_samples, epochs=10)
    assert (visits.sum(axis=1) > 0.98 * n_samples).all()  # an epoch stays as long
    loud, quiet = visits[:, ~stretches], visits[:, stretches]
    assert quiet.mean() / loud.mean() == pytest.approx(weight, rel=0.1)
    assert loud.min() == 1
    assert loud.max() <= 2
    visited = weight / (0.75 + 0.25 * weight)  # of the quiet ones in each epoch
    not_yet = [(quiet[:k].sum(axis=0) == 0).mean() for k in (1, 3, 10)]
    assert not_yet == pytest.approx([(1 - visited) ** k for k in (1, 3, 10)], abs=0.05)


def test_an_item_is_a_function_of_seed_and_number_where_windows_are_weighted():
    clips = numbered_clips([3000, 700, 5000])
    order = Order(0.5, quiet_weight=0.4, powers=powers_of(clips, loud_and_quiet([3000, 700, 5000])))

    def stream():
        return WindowStream(clips, 12, 64, SILENCE, 9, order=order)

    whole, n = stream().batch(0, 300), stream().windows_per_epoch
    assert n < 300  # more than one epoch
    for first, count in [(0, 1), (n - 1, 3), (250, 50)]:
        part = stream().batch(first, count)
        assert_equal(part, cut(whole, slice(first, first + count)))
        assert part.is_real.sum() == stream().n_targets(first, count)


@pytest.mark.parametrize("amplitude", [0.0, 0.5])
def test_where_all_windows_are_equally_loud_each_is_visited_once(amplitude):
    clips = numbered_clips([5000])
    order = Order(quiet_weight=0.4, powers=powers_of(clips, np.full(5000, amplitude, np.float32)))
    stream = WindowStream(clips, 10, 100, SILENCE, 3, order=order)
    assert (visits_of(stream, 5000, epochs=2) == 1).all()


def windows_of_old(clips, field, n_targets, seed, first, count):
    """The stream as it was before clips could follow another one, as its description says: a slow transcription."""
    lengths = [field + clip.n_samples for clip in clips]
    tape_length = sum(lengths)
    n_windows = -(-tape_length // n_targets)
    for item in range(first, first + count):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, item // n_windows])))
        order, windows = rng.permutation(len(clips)), rng.permutation(n_windows)
        offset = int(rng.integers(tape_length))
        tape = [sample for i in order for sample in [None] * field + clips[i].classes().tolist()]
        past = [sample for i in order for sample in [SILENCE] * field + clips[i].classes().tolist()]
        begin = int(windows[item % n_windows]) * n_targets
        places = [begin + k for k in range(n_targets)]
        targets = [tape[(offset + at) % tape_length] if at < tape_length else None for at in places]
        inputs = [past[(offset + at) % tape_length] for at in range(begin - field, begin + n_targets - 1)]
        yield inputs, targets


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA[:20])
def test_without_following_the_stream_is_the_old_one(lengths, field, n_targets):
    clips = numbered_clips(lengths)
    stream = WindowStream(clips, field, n_targets, SILENCE, seed=7)
    n = min(30, 2 * stream.windows_per_epoch + 1)
    batch = stream.batch(0, n)
    for row, (inputs, targets) in enumerate(windows_of_old(clips, field, n_targets, 7, 0, n)):
        real = [target is not None for target in targets]
        assert batch.is_real[row].tolist() == real
        assert batch.targets[row].tolist() == [target or 0 for target in targets]
        for i in np.flatnonzero(real):
            assert batch.inputs[row, i : i + field].tolist() == inputs[i : i + field]


@pytest.mark.parametrize("following", [0.5, 0.75])
def test_an_item_is_a_function_of_seed_and_number_where_clips_follow(following):
    def fresh():
        clips, labels = numbered_clips([40, 7, 3, 90, 22, 1]), ["a", "b", "a", "a", "b", "b"]
        return WindowStream(clips, 12, 16, SILENCE, 9, order=Order(following, labels))

    n = fresh().windows_per_epoch * 5 // 2
    whole, stream = fresh().batch(0, n), fresh()
    for i in np.random.default_rng(2).permutation(n).tolist():
        assert_equal(stream.batch(i, 1), cut(whole, slice(i, i + 1)))


def test_classes_of_one_byte_become_int64():
    class Bytes(NumberedClip):
        def classes(self):
            return super().classes().astype(np.uint8)

    batch = WindowStream([Bytes(0, 200)], 5, 16, 128, seed=0).batch(0, 2)
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    assert batch.is_real.dtype == np.bool_


def test_no_clip_is_an_error():
    with pytest.raises(DataError, match="expected at least one training clip, found none"):
        WindowStream([], 3, 5, SILENCE, seed=0)


# --- conditions ---------------------------------------------------------------------------------------------------


def conditions_of(clips, hop, upsampling, n_labels):
    """Frame f of clip c is the number of its first sample, and c's label is its place."""

    def condition_of(clip):
        label = None
        if n_labels:
            label = np.zeros(n_labels, np.float32)
            label[clips.index(clip)] = 1
        frames = (clip.first + hop * np.arange(-(-clip.n_samples // hop)))[:, None]
        return ClipCondition(label, None if hop is None else denormalized(frames), hop, upsampling)

    return condition_of


def denormalized(values):
    """Frames that the network sees as these values; exact in float32."""
    return (values * SPREAD + MIDDLE).astype(np.float32)


@pytest.mark.parametrize(("hop", "upsampling"), [(6, 1), (6, 3), (50, 2)])
@pytest.mark.parametrize(("lengths", "field", "n_targets"), [c for c in CORPORA if sum(c[0]) < 3000])
def test_every_step_sees_the_frame_and_the_label_of_the_sample_that_it_predicts(
    lengths, field, n_targets, hop, upsampling
):
    clips = numbered_clips(lengths)
    condition_of = conditions_of(clips, hop, upsampling, len(clips))
    batch = epoch_of(WindowStream(clips, field, n_targets, SILENCE, seed=3, condition_of=condition_of))
    seen = batch.condition
    assert seen.row_of.shape == batch.inputs.shape
    assert seen.row_of.max() < seen.frames.shape[1] * upsampling
    tables = np.arange(len(batch.inputs))[:, None]
    frame, sub = seen.row_of // upsampling, seen.row_of % upsampling
    steps_frames = np.rint(seen.frames[tables, frame, 0])
    labels = seen.labels[tables, frame].argmax(axis=-1)
    for row, i in zip(*np.nonzero(batch.is_real), strict=True):
        sample = batch.targets[row, i]
        place, clip = next((k, c) for k, c in enumerate(clips) if c.first <= sample < c.first + c.n_samples)
        past = np.arange(sample - field + 1, sample + 1) - clip.first  # what its receptive field predicts
        steps = slice(i, i + field)
        within = np.maximum(past, 0)
        assert np.array_equal(steps_frames[row, steps], clip.first + within // hop * hop)
        assert np.array_equal(sub[row, steps], within % hop // (hop // upsampling))
        assert (labels[row, steps] == place).all()


@pytest.mark.parametrize(("lengths", "field", "n_targets"), CORPORA)
def test_labels_alone_are_a_row_for_each_stretch(lengths, field, n_targets):
    clips = numbered_clips(lengths)

    def condition_of(clip):
        return ClipCondition(np.array([clips.index(clip)], np.float32))

    batch = epoch_of(WindowStream(clips, field, n_targets, SILENCE, seed=3, condition_of=condition_of))
    seen = batch.condition
    assert seen.frames is None
    labels = seen.labels[np.arange(len(batch.inputs))[:, None], seen.row_of, 0]
    for row, i in zip(*np.nonzero(batch.is_real), strict=True):
        place = next(k for k, c in enumerate(clips) if c.first <= batch.targets[row, i] < c.first + c.n_samples)
        assert (labels[row, i : i + field] == place).all()


def test_conditions_change_nothing_in_the_windows():
    clips = numbered_clips([300, 200, 70])
    plain = epoch_of(WindowStream(clips, 10, 64, SILENCE, seed=3))
    conditioned = epoch_of(WindowStream(clips, 10, 64, SILENCE, seed=3, condition_of=conditions_of(clips, 6, 1, 3)))
    assert_equal(plain, conditioned)
    assert plain.condition is None


@pytest.mark.parametrize("following", [0.0, 0.75])
@pytest.mark.parametrize(
    ("lengths", "most_rows"), [([1, *[2000] * 9], 4), ([1] * 50, None), ([3], None), ([5, 1], None)]
)
def test_tables_hold_the_conditions_of_every_window_and_little_more(lengths, most_rows, following):
    condition = ClipCondition(np.ones(1, np.float32))
    order = Order(following)
    stream = WindowStream(numbered_clips(lengths), 64, 256, SILENCE, 1, lambda clip: condition, order)
    for number in range(4):
        assert len(epoch_of(stream, number).condition.row_of) == stream.windows_per_epoch
    assert most_rows is None or stream._table_rows <= most_rows
