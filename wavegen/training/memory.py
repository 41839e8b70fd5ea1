"""How much memory a training will take, from the shapes alone."""

from __future__ import annotations

from wavegen.config import Config
from wavegen.model.wavenet import build_model

PARAMETER_COPIES = 5  # weights, gradient, AdamW's two moments, running average; float32 each
# Measured on five shapes and precisions (small and paper, 0.5 to 1.6 GB): with these two the estimate is within 12%.
ALLOCATOR_SLACK = 1.15
WORKING_BYTES = 250_000_000  # of the matrix library and the threads


def training_bytes(config: Config, precision: str) -> int:
    """Peak memory of a training step, above that of the imported libraries.

    What autograd keeps of each layer until the backward pass, the output layer's softmax and its gradient, and all
    copies of the parameters.

    Args:
        config: with batch size and window.
        precision: of the matrix products, float32 or bfloat16.

    Returns:
        Bytes.
    """
    import torch

    with torch.device("meta"):
        model = build_model(config)
    shape, training = config.model, config.training
    word = 2 if precision == "bfloat16" else 4
    # a row of a block: h, its copies in the product's precision (one for each tap), tanh, sigmoid, and z
    copies = shape.kernel_size * word * shape.residual_channels if precision == "bfloat16" else 0
    row = 4 * shape.residual_channels + copies + 3 * word * shape.gate_channels
    rows, steps = 0, model.receptive_field - 1 + training.window_targets
    for dilation in shape.dilations:
        steps -= (shape.kernel_size - 1) * dilation
        rows += steps
    # a target: concatenated z, skips, head, logits, their log-softmax and its gradient
    target = word * (len(shape.dilations) * shape.gate_channels + 2 * shape.skip_channels + 2 * shape.head_channels)
    target += (word + 8) * config.quantization.classes
    activations = training.batch_size * (rows * row + training.window_targets * target)
    return int(ALLOCATOR_SLACK * (4 * PARAMETER_COPIES * model.n_parameters + activations)) + WORKING_BYTES
