"""Mixtures as output distributions: what their bins hold, their loss far out, and that draws follow it."""

import math

import numpy as np
import pytest
import torch

from mixtures import MIXTURES
from wavegen.errors import UsageError
from wavegen.model.outputs import MEAN_UNIT, GaussianMixture, LogisticMixture, Truncation

every_mixture = pytest.mark.parametrize("mixture", MIXTURES)
# F(x), as it stands in a textbook; right to a float64's digits where x < 0
CDFS = {
    GaussianMixture: lambda x: 0.5 * math.erfc(-x / math.sqrt(2)),
    LogisticMixture: lambda x: math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x)),
}


def brute_force(mixture, classes, logits, means, log_scales, target):
    """-log P(target), a sum over components of a difference of F, each in its lower tail."""
    total = math.fsum(math.exp(logit) for logit in logits)
    probability = 0.0
    for logit, mean, log_scale in zip(logits, means, log_scales, strict=True):
        low = -math.inf if target == 0 else (2 * target / classes - 1 - mean) / math.exp(log_scale)
        high = math.inf if target == classes - 1 else (2 * (target + 1) / classes - 1 - mean) / math.exp(log_scale)
        if low + high > 0:
            low, high = -high, -low
        probability += math.exp(logit) / total * (CDFS[mixture](high) - CDFS[mixture](low))
    return -math.log(probability)


def parameters_of(logits, means, log_scales, dtype=torch.float64):
    return torch.tensor([*logits, *(mean / MEAN_UNIT for mean in means), *log_scales], dtype=dtype)


def random_parameters(components, n, seed, scales=(-6.0, 0.0)):
    """(n, 3 components) float64: means in and around [-1, 1], log-scales between two bounds."""
    rng = np.random.default_rng(seed)
    logits, means = rng.normal(0, 2, (n, components)), rng.normal(0, 0.7, (n, components))
    return torch.from_numpy(np.concatenate([logits, means / MEAN_UNIT, rng.uniform(*scales, (n, components))], axis=1))


def at_temperature(parameters, components, temperature):
    """The parameters of the distribution that a temperature makes."""
    logits, means, log_scales = parameters.split(components, dim=-1)
    return torch.cat([logits / temperature, means, log_scales + math.log(temperature)], dim=-1)


def probabilities(distribution, parameters):
    """(n, classes) of (n, 3 components) parameters."""
    every = torch.arange(distribution.classes).expand(len(parameters), -1)
    return (-distribution.loss(parameters[:, None].expand(-1, distribution.classes, -1), every)).exp()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 16, 256, 65536])
@every_mixture
def test_the_bins_sum_to_one(mixture, classes, dtype):
    distribution = mixture(classes, 3)
    scales = [(-5.0, 0.0), (-60.0, -8.0), (2.0, 60.0), (-40.0, 40.0)]  # tiny, huge, and both
    parameters = torch.cat([random_parameters(3, 3, seed, span) for seed, span in enumerate(scales)]).to(dtype)
    sums = probabilities(distribution, parameters).double().sum(dim=1)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=tolerance)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.999, 1.0, 40.0])
@every_mixture
def test_the_outer_bins_are_open(mixture, mean):
    """Values beyond the range belong to its ends."""
    distribution = mixture(256, 1)
    p = probabilities(distribution, parameters_of([0.0], [mean], [-5.0])[None])[0]
    assert p[0 if mean < 0 else -1] > 0.4
    assert p.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 16, 65536])
@every_mixture
def test_the_loss_is_minus_the_logarithm_of_the_probability(mixture, classes):
    components = 4
    distribution = mixture(classes, components)
    rng = np.random.default_rng(1)
    for _ in range(50):
        logits, means = rng.normal(0, 2, components), rng.uniform(-0.7, 0.7, components)
        log_scales = rng.uniform(-3, 1, components)  # so that no probability underflows here
        target = int(rng.choice([0, classes - 1, int(rng.integers(classes))]))
        expected = brute_force(mixture, classes, logits, means, log_scales, target)
        parameters = parameters_of(logits, means, log_scales)
        assert distribution.loss(parameters, torch.tensor(target)).item() == pytest.approx(expected, rel=1e-6)
        single = distribution.loss(parameters.float(), torch.tensor(target))
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@every_mixture
def test_the_loss_and_its_gradient_are_finite_everywhere(mixture):
    """Targets as far from every component as they can be, at the smallest and the largest scales."""
    distribution = mixture(65536, 2)
    for mean in (-1e3, -1.0, 0.0, 1.0, 1e3):
        for log_scale in (-1e3, -14.0, -9.0, 0.0, 1e3):
            parameters = parameters_of([0.0, 50.0], [mean, -mean], [log_scale] * 2, torch.float32).requires_grad_()
            targets = torch.tensor([0, 1, 32767, 32768, 65534, 65535])
            loss = distribution.loss(parameters.expand(len(targets), -1), targets)
            (gradient,) = torch.autograd.grad(loss.sum(), parameters)
            assert torch.isfinite(loss).all()
            assert torch.isfinite(gradient).all()


@every_mixture
def test_a_far_component_is_pulled_towards_the_target(mixture):
    distribution = mixture(65536, 1)
    parameters = parameters_of([0.0], [-0.9], [-9.0], torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(distribution.loss(parameters, torch.tensor(60000)), parameters)
    assert gradient[1] < 0  # a higher mean
    assert gradient[2] < 0  # a larger scale


@every_mixture
def test_the_gradient_is_that_of_differences(mixture):
    distribution = mixture(1000, 3)
    parameters = random_parameters(3, 6, seed=2, scales=(-7.0, 0.0)).requires_grad_()
    targets = torch.tensor([0, 1, 400, 700, 998, 999])
    assert torch.autograd.gradcheck(lambda given: distribution.loss(given, targets), [parameters])


@every_mixture
def test_the_loss_of_bfloat16_parameters_is_summed_in_float32(mixture):
    distribution = mixture(65536, 10)
    parameters = random_parameters(10, 5, seed=3).bfloat16()
    targets = torch.tensor([0, 20000, 32768, 40000, 65535])
    loss = distribution.loss(parameters, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distribution.loss(parameters.float(), targets), rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("classes", [2, 16, 300])
@every_mixture
def test_draws_follow_the_probabilities(mixture, classes, temperature):
    """No chance in it: the uniform numbers are an even grid, and each component's share of a bin is one interval."""
    n, components = 20_000, 3
    distribution = mixture(classes, components)
    evenly = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for parameters in random_parameters(components, 5, seed=4, scales=(-4.0, 0.0)):
        drawn = distribution.draw(parameters.expand(n, -1), evenly, Truncation(temperature=temperature))
        assert drawn.dtype == torch.int64
        frequency = np.bincount(drawn.numpy(), minlength=classes) / n
        expected = probabilities(distribution, at_temperature(parameters, components, temperature)[None])[0].numpy()
        assert np.abs(frequency - expected).max() <= 2 * components / n


@every_mixture
def test_draws_of_16_bits_follow_the_cumulative_probabilities(mixture):
    """Kolmogorov and Smirnov's distance, on an even grid of uniform numbers as above."""
    n, distribution = 20_000, mixture(65536, 3)
    evenly = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    (parameters,) = random_parameters(3, 1, seed=5)
    drawn = distribution.draw(parameters.expand(n, -1), evenly, Truncation()).numpy()
    cumulative = np.cumsum(np.bincount(drawn, minlength=65536)) / n
    expected = np.cumsum(probabilities(distribution, parameters[None])[0].numpy())
    assert np.abs(cumulative - expected).max() <= 2 * 3 / n


@every_mixture
def test_a_sure_prediction_is_the_nearest_integer(mixture):
    distribution = mixture(65536, 1)
    evenly = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    for integer in (-32768, -1, 0, 77, 32767):
        parameters = parameters_of([0.0], [(integer + 0.5) / 32768], [-20.0])  # bins reach from an integer to the next
        drawn = distribution.draw(parameters.expand(100, -1), evenly, Truncation())
        assert set(drawn.tolist()) == {integer + 32768}


@every_mixture
def test_without_temperature_the_mean_of_the_likeliest_component_is_taken(mixture):
    distribution = mixture(65536, 3)
    logits, means = [1.0, 3.0, 3.0], [0.9, 100.5 / 32768, -0.3]  # among equals the lower one
    parameters = parameters_of(logits, means, [-1.0, -1.0, -9.0])[None]
    for u in (0.0, 0.99):
        drawn = distribution.draw(parameters, torch.tensor([u], dtype=torch.float64), Truncation(temperature=0))
        assert drawn.item() == 32768 + 100
    for temperature in (1e-3, 1e-30, 1e-300, 5e-324):
        clear = parameters_of([1.0, 3.0, 2.9], means, [-1.0, -1.0, -9.0])[None]
        u = torch.tensor([0.3], dtype=torch.float64)
        assert abs(distribution.draw(clear, u, Truncation(temperature=temperature)).item() - 32868) <= 50


@pytest.mark.parametrize("u", [0.0, 5e-324, 1 - 2**-53, 1.0])
@every_mixture
def test_the_outermost_uniform_numbers_give_classes(mixture, u):
    distribution = mixture(65536, 3)
    parameters = parameters_of([0.0, -2000.0, -9.0], [0.2, 0.0, 5.0], [1.0, 3.0, 3.0])[None]
    drawn = distribution.draw(parameters, torch.tensor([u], dtype=torch.float64), Truncation())
    assert 0 <= drawn.item() <= 65535


def test_draws_depend_on_the_mixture_as_intended():
    """By hand: components of 1/4 and 3/4, and u = 5/8 falls into the middle of the second one."""
    distribution = LogisticMixture(100, 2)
    parameters = parameters_of([0.0, math.log(3)], [-0.5, 0.5], [-3.0, -3.0])[None]
    u = torch.tensor([0.625], dtype=torch.float64)
    assert distribution.draw(parameters, u, Truncation()).item() in (74, 75)
    quarter = torch.tensor([0.25 + 0.75 * 0.25], dtype=torch.float64)  # the lower quartile: mean - scale ln 3
    place = 0.5 - math.exp(-3) * math.log(3)
    assert distribution.draw(parameters, quarter, Truncation()).item() == math.floor((place + 1) * 50)


@pytest.mark.parametrize("truncation", [Truncation(top_k=5), Truncation(top_p=0.9)])
@every_mixture
def test_classes_are_not_ranked(mixture, truncation):
    distribution = mixture(65536, 2)
    option = "top_k" if truncation.top_k else "top_p"
    what = f"mixture of 2 {distribution.shape} distributions"
    with pytest.raises(UsageError, match=rf"^{option}: not with this model, whose output \({what}\) .*lower the temp"):
        distribution.draw(torch.zeros(1, 6), torch.zeros(1, dtype=torch.float64), truncation)


@pytest.mark.parametrize("components", [1, 2, 10])
@pytest.mark.parametrize("classes", [2, 256, 65536])
@every_mixture
def test_an_untrained_mixture_is_no_worse_than_uniform(mixture, classes, components):
    """On what sounds are: now and then loud, mostly quiet."""
    distribution = mixture(classes, components)
    layer = torch.nn.Linear(4, distribution.n_parameters)
    distribution.initialize(layer)
    rng = np.random.default_rng(6)
    amplitude = np.clip(rng.laplace(0, 10.0 ** rng.uniform(-3.5, -0.7, 20_000)), -1, 1)
    targets = torch.from_numpy(np.clip(np.floor((amplitude + 1) / 2 * classes), 0, classes - 1).astype(np.int64))
    loss = distribution.loss(layer(torch.randn(len(targets), 4)), targets)
    assert loss.mean().item() <= math.log(classes) + 0.01


def test_bfloat16_products_leave_16_bits_as_they_are(random_model):
    """Neither the amplitude that enters nor the parameters that come out are rounded to bfloat16's eight bits."""
    model = random_model(classes=65536, distribution=LogisticMixture(65536, 3), input_kind="scalar")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        entered = model.input(torch.tensor([50000, 50001]))
        parameters = model.predict(torch.randn(4, model.skip.out_features))
    assert not torch.equal(entered[0], entered[1])
    assert parameters.dtype == torch.float32
    assert not torch.equal(parameters, parameters.bfloat16().float())
