"""How a series goes on: a network's forecasts, and forecasts from forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.sampling.engines.engine import not_finite

if TYPE_CHECKING:
    from wavegen.model.network import Network


def forecast(network: Network, values: npt.NDArray[np.float32], steps: int) -> npt.NDArray[np.float32]:
    """The next values of a series.

    A network's forecast is as long as its horizon; what lies beyond is forecast as if those values were known.

    Args:
        network: of series, on its device.
        values: (T,) the series so far, T >= 1, as the network sees it.
        steps: values to forecast.

    Returns:
        (steps,), as the network sees them.
    """
    import torch

    field = network.receptive_field
    heard = np.concatenate([np.full(field - 1, network.before_series, dtype=np.float32), values])
    device, made, state = next(network.parameters()).device, np.empty(0, dtype=np.float32), None
    network.eval()
    with torch.no_grad():
        while len(made) < steps:
            inputs = torch.from_numpy(heard)[None].to(device)
            if network.has_memory:
                parameters, state = network.advance(inputs, state)
            else:
                parameters = network(inputs[:, -field:])
            news = parameters[0, -1].float().cpu().numpy()
            made = np.concatenate([made, news])
            heard = news if network.has_memory else np.concatenate([heard[-field:], news])
    if not np.isfinite(made).all():
        raise not_finite()
    return made[:steps]
