"""What all tests share: a cache of their own, a fixed number of threads, and tiny random models."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from wavegen.model.wavenet import WaveNet


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decoded audio out of the cache of whoever runs the tests; subprocesses inherit this."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WAVEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def random_model() -> Callable[..., WaveNet]:
    """Build a small network in which no weight is zero and no two sizes are equal."""

    def build(*, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: object) -> WaveNet:
        plain = {
            "classes": 16,
            "dilations": [1, 2, 4],
            "kernel_size": 2,
            "residual_channels": 6,
            "gate_channels": 5,
            "skip_channels": 7,
            "head_channels": 9,
        }
        chosen = {**plain, **sizes}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = WaveNet(**{"output_channels": chosen["classes"], **chosen})
            nn.init.normal_(model.output.weight, std=0.7)
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    nn.init.normal_(parameter, std=0.3)
        return model.to(dtype).eval()

    return build
