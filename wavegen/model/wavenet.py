"""The WaveNet (van den Oord et al., 2016): the stack, its receptive field, and the teacher-forced forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavegen.config.schema import ModelConfig
from wavegen.model.layers import (
    Condition,
    Conditioning,
    Dropped,
    EmbeddingInput,
    GateBias,
    NormedConv,
    NormedLinear,
    OneHotInput,
    ResidualBlock,
    ScalarInput,
    activate,
    bias_of,
    trained_matrix,
)
from wavegen.model.network import Forward, LayerFacts, MatrixGroup, Network, SliceShape
from wavegen.model.outputs import Distribution

HEAD_ROWS = 4096  # targets whose logits the fused backend holds at a time, so that they stay in the cache

BlockStack = Callable[[Tensor, int, GateBias | None], Tensor]  # a way to compute the residual blocks


class WaveNet(Network):
    """Predicts each sample's distribution from the receptive field of samples before it.

        x[t-1], x[t-2], ... -> embedding -> residual blocks -> sum of skips -> ReLU -> 1x1 -> ReLU -> 1x1 -> p(x[t])

    Args:
        classes: levels of the input.
        distribution: of a sample, whose parameters the network puts out.
        model: the section of the configuration: the blocks' sizes and form. Without ``bias``, the output layer of a
            mixture keeps its own, for it holds the first scales; an input layer is as it is in any case.
        n_labels: labels to be conditioned on; 0 for none.
        frame_channels: columns of the frames to be conditioned on; 0 for none.
        upsampling: rows that are made of a frame.
    """

    runs_fused = True

    def __init__(
        self,
        classes: int,
        distribution: Distribution,
        model: ModelConfig,
        n_labels: int = 0,
        frame_channels: int = 0,
        upsampling: int = 1,
    ) -> None:
        super().__init__(classes, distribution, model)
        gate, bias, depth = model.gate_channels, model.bias, len(model.dilations)
        inputs = {"embedding": EmbeddingInput, "one_hot": OneHotInput, "scalar": ScalarInput}
        self.input = inputs[model.input](classes, model.residual_channels)
        sizes = (model.residual_channels, gate, model.kernel_size)
        self.blocks = nn.ModuleList(
            ResidualBlock(*sizes, dilation, i + 1 == depth, bias, model.activation)
            for i, dilation in enumerate(model.dilations)
        )
        # Ws of all blocks side by side: the sum of skips is one product with all z concatenated.
        self.skip = nn.Linear(depth * gate, model.skip_channels, bias=bias)
        self.head = nn.Linear(model.skip_channels, model.head_channels, bias=bias)
        self.output = nn.Linear(model.head_channels, distribution.n_parameters, bias=bias or distribution.is_precise)
        for linear in (self.skip, self.head):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        distribution.initialize(self.output)
        if n_labels or frame_channels:
            shape = (depth, model.conv_channels)
            self.conditioning = Conditioning(n_labels, model.label_channels, frame_channels, upsampling, *shape)
        if model.weight_norm:
            self._normalize()

    def _normalize(self) -> None:
        """Put the blocks' layers, the skips and the head under weight normalization."""
        for block in self.residual_blocks:
            block.conv = NormedConv(block.conv)
            if block.residual is not None:
                block.residual = NormedLinear(block.residual)
        self.skip = NormedLinear(self.skip, parts=len(self.blocks))
        self.head = NormedLinear(self.head)

    # --- description ---------------------------------------------------------------------------------------------

    @property
    def residual_blocks(self) -> list[ResidualBlock]:
        """The blocks in order."""
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]

    @property
    def receptive_field(self) -> int:
        """Samples of past that one prediction sees."""
        return 1 + sum(block.conv.reach for block in self.residual_blocks)

    def describe(self) -> str:
        channels = self.residual_blocks[0].conv.weight.shape[2]
        return f"wavenet, {len(self.blocks)} blocks, {channels} residual channels"

    def layer_facts(self) -> list[LayerFacts]:
        return [LayerFacts("block", block.conv.kernel_size, block.conv.dilation) for block in self.residual_blocks]

    # --- computing ----------------------------------------------------------------------------------------------

    def forward(self, inputs: Tensor, condition: Condition | None = None, stack: BlockStack | None = None) -> Tensor:
        """See ``Network``: as one convolution.

        Args:
            inputs: as ``Network``'s.
            condition: likewise.
            stack: the way to compute the residual blocks; None for the method ``stack``.
        """
        batch = len(inputs)
        rows = self.predict((stack or self.stack)(self.embed(inputs), batch, self.gate_bias(condition)))
        # (n * B, n_parameters) time-major -> (B, n, n_parameters)
        return rows.view(-1, batch, rows.shape[-1]).transpose(0, 1)

    def scorers(self, n: int) -> Sequence[Forward]:
        """See ``Network``: on a CPU the fused blocks, a workspace for each thread."""
        from wavegen.model.fused_stack import FusedStack

        weight = self.skip.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return [self]
        blocks = [FusedStack(self.residual_blocks, self.skip, torch.float32, forward_only=True) for _ in range(n)]
        return [partial(self, stack=stack) for stack in blocks]

    def embed(self, inputs: Tensor) -> Tensor:
        """Compute the first block's input.

        Args:
            inputs: as ``forward``'s.

        Returns:
            (T * B, residual_channels) time-major rows.

        Raises:
            ValueError: T is less than the receptive field.
        """
        self.check_length(inputs.shape[1])
        rows: Tensor = self.input(inputs.t().reshape(-1))
        return rows

    def gate_bias(self, condition: Condition | None) -> GateBias | None:
        """Compute the gate bias of every block; None in a network without conditions.

        Raises:
            ValueError: there is a condition and no place for it, or the reverse.
        """
        if (condition is None) != (self.conditioning is None):
            raise ValueError("expected a condition for a conditioned network, and none for another")
        if condition is None or self.conditioning is None:
            return None
        rows: GateBias = self.conditioning(condition)
        return rows

    def stack(
        self,
        h: Tensor,
        batch: int,
        rows: GateBias | None = None,
        recompute: bool = False,
        dropped: Dropped | None = None,
    ) -> Tensor:
        """Apply all blocks, one after another, and sum their skips.

        Args:
            h: (T * batch, residual_channels) time-major rows.
            batch: sequences side by side in the rows.
            rows: what conditions add to the gates; ``row_of`` has an entry for each row of h.
            recompute: keep only each block's results for the backward pass, and compute what is inside again.
            dropped: outputs of blocks that are left out; None for none.

        Returns:
            (n * batch, skip_channels), for the n steps whose whole receptive field is in h.
        """
        outputs = []
        for i, block in enumerate(self.residual_blocks):
            added = None if rows is None else rows.of_block(i, len(h) - block.conv.reach * batch)
            given = (h, batch, added) if dropped is None else (h, batch, added, dropped.kept[i], dropped.scale)
            z, h = checkpoint(block, *given, use_reentrant=False) if recompute else block(*given)
            outputs.append(z)
        skip: Tensor = self.skip(torch.cat([z[-len(outputs[-1]) :] for z in outputs], dim=-1))
        return skip

    def predict(self, skip: Tensor) -> Tensor:
        """Apply the head: summed skips (n, skip_channels) -> parameters of distributions (n, n_parameters)."""
        hidden = torch.relu(self.head(torch.relu(skip)))
        if not self.distribution.is_precise:
            logits: Tensor = self.output(hidden)
            return logits
        # float32: the eight bits of a bfloat16 mean cannot distinguish neighbouring amplitudes
        with torch.autocast(skip.device.type, enabled=False):
            parameters: Tensor = self.output(hidden.to(self.output.weight.dtype))
        return parameters

    def queue_step(self, past: Tensor, condition: Condition | None = None) -> WaveNetStep:
        return WaveNetStep(self, past, condition)

    def queues(self, inputs: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """Compute every block's queue after these inputs, by one parallel pass instead of a step per sample.

        Args:
            inputs: (B, T) integer classes, T >= receptive_field - 1.
            condition: as ``forward``'s.

        Returns:
            For each block (reach, B, residual_channels): its last ``reach`` inputs, oldest first.
        """
        batch, steps = inputs.shape
        inputs = inputs[:, steps - (self.receptive_field - 1) :]
        h = self.input(inputs.t().reshape(-1))  # (T * B, residual_channels)
        rows = self.gate_bias(condition)
        held = []
        for i, block in enumerate(self.residual_blocks):
            reach = block.conv.reach
            held.append(h[len(h) - reach * batch :].view(reach, batch, -1))
            if block.residual is not None:
                added = None if rows is None else rows.of_block(i, len(h) - reach * batch)
                _, h = block(h, batch, added)
        return held

    # --- training -----------------------------------------------------------------------------------------------

    def matrix_groups(self) -> list[MatrixGroup]:
        """See ``Network``: filters, gates, Wr, Ws and V of each block, and the head's first layer."""
        blocks, conditioning = self.residual_blocks, self.conditioning
        taps, convolved, channels = trained_matrix(blocks[0].conv).shape
        parts = 2 if self.config.activation == "gated" else 1  # filter and gate are matrices of their own
        depth, gates = len(blocks), convolved // parts
        groups = [
            MatrixGroup([trained_matrix(block.conv) for block in blocks], (taps, parts, gates, channels), 2, (0, 3)),
            # outputs of skips are added up
            MatrixGroup(
                [trained_matrix(self.skip)], (self.skip.out_features, depth, gates), 0, (2,), scale=depth**-0.5
            ),
            MatrixGroup([trained_matrix(self.head)]),
        ]
        if residuals := [trained_matrix(block.residual) for block in blocks if block.residual is not None]:
            groups.append(MatrixGroup(residuals))
        if conditioning is not None:
            inputs = conditioning.projection.shape[1]
            groups.append(MatrixGroup([conditioning.projection], (depth * parts, gates, inputs), 1, (2,)))
        return groups

    def dropout_shapes(self, n_steps: int) -> list[tuple[int, int]]:
        """See ``Network``: each block's z."""
        shapes = []
        for block in self.residual_blocks:
            n_steps -= block.conv.reach
            shapes.append((n_steps, block.n_outputs))
        return shapes

    def activation_bytes(self, part: SliceShape) -> int:
        first = self.residual_blocks[0]
        residual, convolved, depth = first.conv.weight.shape[2], first.conv.out_channels, len(self.blocks)
        steps = self.receptive_field - 1 + part.targets
        block_rows = part.windows * sum(n for n, _ in self.dropout_shapes(steps))
        targets = part.windows * part.targets
        # what conditions add to the gates, its gradient, and for the fused backend their sum with the biases
        copies, columns = 3 if part.fused else 2, 0 if self.conditioning is None else self.conditioning.frame_channels
        of_conditions = part.windows * part.condition_rows * 4 * (copies * depth * convolved + 2 * columns)
        if part.fused:
            of_blocks = block_rows * part.word * (residual + (0 if part.recompute else convolved))
            of_stream = part.windows * steps * residual * (4 + 4 + 4)  # h; the input layer's result and its gradient
            of_skips = targets * part.word * (depth * first.n_outputs + 3 * self.skip.out_features)
            of_output = self.distribution.n_parameters * (2 * part.word + 12)
            of_head = min(targets, HEAD_ROWS) * (of_output + 4 * part.word * self.head.out_features)
            return of_blocks + of_stream + of_skips + of_head + of_conditions
        # autograd keeps of a block's row: h, its copies in the products' precision (one for each tap), tanh and
        # sigmoid, and z
        inputs = first.conv.kernel_size * part.word * residual if part.word == 2 else 0
        inside = 2 * part.word * first.n_outputs if self.config.activation == "gated" else 0  # of others it is z itself
        if part.dropout and self.config.activation != "gated":
            inside = part.word * first.n_outputs  # z before and after
        row = 4 * residual + part.word * first.n_outputs + (0 if part.recompute else inputs + inside)
        row += first.n_outputs if part.dropout else 0  # the mask
        # of a target: concatenated z, skips, head, logits, their log-softmax and its gradient
        target = part.word * (depth * first.n_outputs + 2 * self.skip.out_features + 2 * self.head.out_features)
        target += (part.word + 8) * self.distribution.n_parameters
        return block_rows * row + targets * target + of_conditions


class WaveNetStep:
    """Implements ``QueueStep``.

    Args:
        model: the network; weights under normalization are folded here, once.
        past: (B, T) classes, the newest last, T >= receptive_field.
        condition: of a conditioned network: what the steps of the past saw.
    """

    def __init__(self, model: WaveNet, past: Tensor, condition: Condition | None) -> None:
        self.model, self.blocks = model, [_DenseBlock(block) for block in model.residual_blocks]
        # (reach, B, residual_channels) rings, oldest first
        self.queues = [held.clone() for held in model.queues(past[:, :-1], condition)]
        # what conditions add to each block's convolution: views of one buffer, (B, blocks, outputs of a convolution)
        self.gate_bias: Tensor | None = None
        self.added: list[Tensor] = []
        if condition is not None:
            self.gate_bias = model.skip.weight.new_zeros(len(past), len(self.blocks), len(self.blocks[0].bias))
            self.added = list(self.gate_bias.unbind(dim=1))
        # every block writes its z (B, G) into its slice of (B, blocks G): the sum of skips is one product
        self.z = self.queues[0].new_empty(len(past), model.skip.in_features)
        self.slices = self.z.chunk(len(self.blocks), dim=-1)
        # slot (steps + offset) mod reach, for all taps of all blocks at once; that of tap 0 is the oldest
        self.steps = torch.zeros((), dtype=torch.int64, device=past.device)
        self.offsets = torch.tensor([block.offsets for block in self.blocks], device=past.device)  # (blocks, taps - 1)
        self.reaches = torch.tensor([[block.reach] for block in self.blocks], device=past.device)  # (blocks, 1)

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        return (*self.queues, self.steps)

    def __call__(self, newest: Tensor) -> Tensor:
        model = self.model
        h = model.input(newest)  # (B, R)
        slots = (self.steps + self.offsets) % self.reaches  # (blocks, taps - 1)
        for i, (block, queue, z, taps) in enumerate(zip(self.blocks, self.queues, self.slices, slots, strict=True)):
            # W * h: the newest tap is h itself, (B, R) x (R, 2G); the older ones are rows of the ring
            gates = torch.addmm(block.bias, h, block.taps[-1])
            if self.added:
                gates += self.added[i]
            for slot, tap in zip(taps.chunk(len(taps)), block.taps, strict=False):
                gates.addmm_(queue.index_select(0, slot)[0], tap)
            queue.index_copy_(0, taps[:1], h[None])  # over the oldest, which no later step reads
            activate(gates, model.config.activation, out=z)
            if block.residual is not None:
                h = torch.addmm(h, z, block.residual)  # h <- h + Wr z
        self.steps += 1
        logits: Tensor = model.output(torch.relu(model.head(torch.relu(model.skip(self.z)))))
        return logits.float()


class _DenseBlock:
    """A residual block as a dense layer: its weights, laid out for one step."""

    def __init__(self, block: ResidualBlock) -> None:
        conv, weight = block.conv, block.conv.weight.detach()
        self.reach = conv.reach
        self.bias = bias_of(conv)
        self.taps = [matrix.t().contiguous() for matrix in weight.unbind(dim=0)]  # (R, 2G) each, the oldest first
        # tap j reads (kernel_size - 1 - j) * dilation steps back: that many steps after the oldest held
        self.offsets = [tap * conv.dilation for tap in range(conv.kernel_size - 1)]
        self.residual = None if block.residual is None else block.residual.weight.detach().t().contiguous()  # (G, R)
