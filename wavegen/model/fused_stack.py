"""The residual blocks of a WaveNet and their skip connections as one operation on a CPU, forward and backward.

The same function as the blocks of ``wavegen.model.layers``, worked through in stretches of rows that stay in the
core's cache: matrix products by PyTorch, everything between them by ``kernels``. Its buffers are allocated once and
used again for every call of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegen.model import fused_kernels as kernels
from wavegen.model.layers import GateBias, ResidualBlock, bias_of
from wavegen.simd import LANES

# A stretch's inputs and outputs of the convolution. On a Zen 5, with 1 MB of second-level cache, a step takes 6% longer
# with half of it, 15% with a quarter, and as long with twice as much: each call costs, too.
CACHE_BYTES = 2 << 20


class FusedStack:
    """A workspace for the residual blocks of one model; used by one thread at a time.

    Args:
        blocks: of the model.
        skip: Ws of all blocks side by side.
        dtype: of the matrix products and of what is kept for the backward pass, float32 or bfloat16. The stream h
            and all gradients of weights are summed in float32.
        recompute: keep only each block's input for the backward pass and compute its gates again.
        forward_only: keep nothing; there is no backward pass.
    """

    def __init__(
        self,
        blocks: Sequence[ResidualBlock],
        skip: nn.Linear,
        dtype: torch.dtype,
        recompute: bool = False,
        forward_only: bool = False,
    ) -> None:
        self.blocks, self.skip = list(blocks), skip
        self.dtype = dtype
        self.recompute, self.forward_only = recompute or forward_only, forward_only
        first = self.blocks[0].conv
        self.kernel_size = first.kernel_size
        self.activation = self.blocks[0].activation
        self.parts = 2 if self.activation == "gated" else 1  # of a convolution's outputs: filter and gate
        _, outputs, self.inputs = first.weight.shape
        self.gates = outputs // self.parts
        self.channels, self.gate_channels = _padded(self.inputs), _padded(self.gates)
        self.calls = 0  # a backward pass belongs to the last forward pass: they share the buffers
        self.shape = (0, 0)

    def __call__(self, h: Tensor, batch: int, rows: GateBias | None = None) -> Tensor:
        """Apply all blocks.

        Args:
            h: (T * batch, residual_channels) time-major rows.
            batch: sequences side by side in the rows.
            rows: what conditions add to the gates; None for nothing.

        Returns:
            (n * batch, skip_channels): the sum of the skips, for the n steps whose whole receptive field is in h.
        """
        if self.shape != (len(h), batch):
            self._allocate(len(h), batch)
        self.index = self._all_first if rows is None else rows.row_of.numpy()
        convolutions = [block.conv for block in self.blocks]
        none = torch.zeros(self.inputs, self.gates)  # of the last block, which has no Wr
        skips: Tensor = _Stack.apply(
            self,
            h,
            None if rows is None else rows.table.float(),
            torch.stack([conv.weight for conv in convolutions]),
            torch.stack([bias_of(conv) for conv in convolutions]),
            torch.stack([none if block.residual is None else block.residual.weight for block in self.blocks]),
            self.skip.weight,
            bias_of(self.skip),
        )
        return skips

    def pack(
        self, table: Tensor | None, weight: Tensor, bias: Tensor, residual: Tensor, skip: Tensor, skip_bias: Tensor
    ) -> _Weights:
        """Lay the parameters of L blocks out as the products take them.

        Args:
            table: (N, L, PG), what conditions add to the biases; None for nothing.
            weight: (L, taps, PG, C) of the convolutions.
            bias: (L, PG) of the convolutions.
            residual: (L, C, G) Wr.
            skip: (S, L G) Ws.
            skip_bias: (S,).
        """
        depth, taps = weight.shape[:2]
        more_gates, more_inputs = self.gate_channels - self.gates, self.channels - self.inputs
        # (L, taps, PG, C) -> (L, taps, P, G, C) -> padded -> (L, P, G, taps, C) -> (L, PG, taps C): filter and gate are
        # padded each by itself, so that both begin at a whole register
        apart = F.pad(weight.view(depth, taps, self.parts, self.gates, self.inputs), (0, more_inputs, 0, more_gates))
        # (L, 1, PG) + (L, N, PG): a row of biases for each row of the conditions; padded likewise
        added = bias[:, None] if table is None else bias[:, None] + table.transpose(0, 1)
        biases = F.pad(added.reshape(*added.shape[:2], self.parts, self.gates), (0, more_gates)).flatten(2)
        # Ws: (S, L G) -> (S, L, G) -> padded -> (S, L G), in the layout of the blocks' padded z
        skips = F.pad(skip.view(-1, depth, self.gates), (0, more_gates)).flatten(1)
        return _Weights(
            convolution=apart.permute(0, 2, 3, 1, 4).reshape(depth, self.parts * self.gate_channels, -1).to(self.dtype),
            bias=biases.contiguous(),
            residual=F.pad(residual, (0, more_gates, 0, more_inputs)).to(self.dtype),
            skip=skips.to(self.dtype),
            skip_bias=skip_bias.to(self.dtype),
        )

    def unpack(self, sums: _Weights) -> tuple[Tensor, ...]:
        """Return gradients as ``pack`` takes the parameters."""
        depth = len(self.blocks)
        # (L, PG, taps C) -> (L, P, G, taps, C) without the padding -> (L, taps, P, G, C) -> (L, taps, PG, C)
        apart = sums.convolution.view(depth, self.parts, -1, self.kernel_size, self.channels)
        weight = apart[:, :, : self.gates, :, : self.inputs].permute(0, 3, 1, 2, 4)
        # (L, N, PG) -> (L, N, P, G) without the padding -> (L, N, PG); a bias is in every row of the conditions
        table, bias = (
            rows.view(depth, -1, self.parts, self.gate_channels)[..., : self.gates].flatten(2)
            for rows in (sums.bias, sums.bias.sum(dim=1))
        )
        skip = sums.skip.view(-1, depth, self.gate_channels)[:, :, : self.gates]
        return (
            table.transpose(0, 1),
            weight.reshape(depth, self.kernel_size, -1, self.inputs),
            bias[:, 0],
            sums.residual[:, : self.inputs, : self.gates],
            skip.flatten(1),
            sums.skip_bias,
        )

    # --- buffers ------------------------------------------------------------------------------------------------

    def _allocate(self, n_rows: int, batch: int) -> None:
        depth, channels, gates = len(self.blocks), self.channels, self.gate_channels
        convolved = self.parts * gates
        self.shape = (n_rows, batch)
        self._all_first = np.zeros(n_rows, np.int64)  # without conditions: one row of biases, for all
        steps = [block.conv.dilation * batch for block in self.blocks]  # rows from one tap to the next
        # block i puts out the rows from begins[i + 1] on: those whose past is in h
        begins = np.cumsum([0, *(block.conv.reach * batch for block in self.blocks)]).tolist()
        self.n_outputs = n_rows - begins[-1]
        word = torch.empty(0, dtype=self.dtype).element_size()
        row_bytes = word * (self.kernel_size * channels + convolved)
        # rows in a stretch: its inputs and outputs fill the cache, and no vector is cut
        length = min(n_rows, max(LANES, CACHE_BYTES // row_bytes))

        def buffer(rows: int, columns: int, dtype: torch.dtype = self.dtype) -> _Buffer:
            return _Buffer(torch.empty(rows, columns, dtype=dtype))

        # The stream is float32 in every precision of the products: h is a sum over all blocks, and so is its gradient.
        self.stream = buffer(n_rows, channels, torch.float32)  # h between the blocks, then its gradient
        # Forward only: two inputs in turn, for a block reads one while it writes the next.
        inputs = [buffer(n_rows, channels) for _ in range(2 if self.forward_only else depth)]
        self.h = [inputs[i % len(inputs)] for i in range(depth)]  # each block's input
        # (n_outputs, blocks G): the skips are one product over it
        self.z = buffer(self.n_outputs, depth * gates)  # each block's, side by side, where it has a skip
        # gates of all blocks, or of one stretch where they are computed again
        kept = [buffer(length if self.recompute else n_rows, convolved) for _ in range(1 if self.recompute else depth)]
        # taps, z, dz, dgates and residual of a stretch
        widths = (self.kernel_size * channels, gates, gates, convolved, channels)
        scratch = [buffer(length, width) for width in widths]
        self.stretches: list[list[_Stretch]] = []
        for i, step in enumerate(steps):
            stretches = []
            begin = begins[i + 1]
            even = -(-(n_rows - begin) // -(-(n_rows - begin) // length))  # stretches of (nearly) equal length
            for first in range(begin, n_rows, even):
                n = min(even, n_rows - first)
                oldest, skip_from = first - (self.kernel_size - 1) * step, min(n, max(begins[-1] - first, 0))
                skip_row, stream = max(first - begins[-1], 0), self.stream[first : first + n]
                own_gates = kept[0][:n] if self.recompute else kept[i][first : first + n]
                of_length = (each[:n] for each in scratch)
                stretches.append(_Stretch(first, oldest, step, skip_from, skip_row, stream, own_gates, *of_length))
            self.stretches.append(stretches)

    # --- the two passes -----------------------------------------------------------------------------------------

    def forward(self, h: Tensor, weights: _Weights) -> Tensor:
        """Run all blocks; see ``__call__``."""
        own = h.shape[1]
        # h (T B, R) -> (T B, C), the padding 0
        self.stream.tensor[:, :own] = h
        self.stream.tensor[:, own:] = 0
        # in the products' precision
        kernels.copy_rows(self.stream.array, 0, self.h[0].array, 0, 0)
        for i, stretches in enumerate(self.stretches):
            for s in stretches:
                # z = tanh(Wf * h) sigmoid(Wg * h), of a stretch
                self._gate(i, s, weights)
                if s.skip_from < len(s.z.array):
                    # the rows with a skip connection go into this block's columns
                    kernels.copy_rows(s.z.array, s.skip_from, self.z.array, s.skip_row, i * self.gate_channels)
                if i + 1 < len(self.blocks):
                    # h <- h + Wr z: (n, G) x (G, C)
                    torch.mm(s.z.tensor, weights.residual[i].t(), out=s.residual.tensor)
                    kernels.add_residual(self.stream.array, s.first, s.residual.array, self.h[i + 1].array)
        # sum of skips: (n_outputs, blocks G) x (blocks G, S)
        return torch.addmm(weights.skip_bias, self.z.tensor, weights.skip.t())

    def _gate(self, i: int, s: _Stretch, weights: _Weights) -> None:
        """Compute z of a stretch of a block's output; its gates are kept."""
        # (n, taps C): the inputs of each tap side by side
        kernels.gather_taps(self.h[i].array, s.oldest, s.step, s.taps.array)
        # (n, taps C) x (taps C, P G)
        torch.mm(s.taps.tensor, weights.convolution[i].t(), out=s.gates.tensor)
        bias, index = weights.bias[i].numpy(), self._index_of(s)
        if self.activation == "gated":
            kernels.gate_forward(s.gates.array, bias, index, s.z.array)
        else:
            kernels.activate_forward(s.gates.array, bias, index, self.activation == "relu", s.z.array)

    def _gate_backward(self, s: _Stretch, dbias: npt.NDArray[np.float32]) -> None:
        """Compute the gradient of the convolution's outputs from that of a stretch's z; z is computed again."""
        given, results = (s.gates.array, s.dz.array, self._index_of(s)), (s.z.array, s.dgates.array, dbias)
        if self.activation == "gated":
            kernels.gate_backward(*given, *results)
        else:
            kernels.activate_backward(*given, self.activation == "relu", *results)

    def _index_of(self, s: _Stretch) -> npt.NDArray[np.int64]:
        return self.index[s.first : s.first + len(s.z.array)]

    def backward(self, dskip: Tensor, weights: _Weights) -> tuple[Tensor, _Weights]:
        """Compute the gradients of the last forward pass.

        Args:
            dskip: with respect to its result.
            weights: of that pass.

        Returns:
            With respect to h, and to the weights.
        """
        last, width = len(self.blocks) - 1, self.gate_channels
        dskip = dskip.to(self.dtype)
        sums = _Weights(*(torch.zeros(weight.shape) for weight in weights))  # in float32
        torch.sum(dskip, dim=0, dtype=torch.float32, out=sums.skip_bias)
        # dWs += dskip^T z: (S, n_outputs) x (n_outputs, blocks G)
        _add_product(sums.skip, dskip, self.z.tensor)
        dh = self.stream.array  # the gradient with respect to a block's output becomes that of its input, in place
        self.stream.tensor.zero_()
        for i in reversed(range(len(self.blocks))):
            columns = slice(i * width, (i + 1) * width)
            skip = weights.skip[:, columns].t().contiguous().t()  # the product is faster so
            # In ascending order: a stretch reads dh of its own rows, then adds to rows that no later stretch reads.
            for s in self.stretches[i]:
                if self.recompute:
                    self._gate(i, s, weights)
                else:
                    kernels.gather_taps(self.h[i].array, s.oldest, s.step, s.taps.array)
                if i < last:
                    kernels.copy_rows(s.stream.array, 0, s.residual.array, 0, 0)  # dh, in the products' precision
                    # dz = Wr^T dh + Ws^T dskip: (n, C) x (C, G), (n, S) x (S, G)
                    torch.mm(s.residual.tensor, weights.residual[i], out=s.dz.tensor)
                else:
                    s.dz.tensor.zero_()
                dskip_here = dskip[s.skip_row : s.skip_row + len(s.z.array) - s.skip_from]
                if len(dskip_here):
                    s.dz.tensor[s.skip_from :].addmm_(dskip_here, skip)
                # through tanh and sigmoid, to the convolution's outputs
                self._gate_backward(s, sums.bias[i].numpy())
                # dW += dgates^T taps: (P G, n) x (n, taps C)
                _add_product(sums.convolution[i], s.dgates.tensor, s.taps.tensor)
                if i < last:
                    # dWr += dh^T z: (C, n) x (n, G)
                    _add_product(sums.residual[i], s.residual.tensor, s.z.tensor)
                # dtaps = dgates W: (n, P G) x (P G, taps C); each tap's part goes back to the row that it came from
                torch.mm(s.dgates.tensor, weights.convolution[i], out=s.taps.tensor)
                kernels.scatter_taps(s.taps.array, s.oldest, s.step, dh)
        return self.stream.tensor, sums


class _Buffer:
    """A tensor, and the same memory as the kernels see it."""

    def __init__(self, tensor: Tensor, array: npt.NDArray[Any] | None = None) -> None:
        self.tensor = tensor
        if array is None:
            array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
        self.array = array

    def __getitem__(self, rows: slice) -> _Buffer:
        return _Buffer(self.tensor[rows], self.array[rows])


@dataclass(frozen=True)
class _Stretch:
    """Some rows of one block's output, and the buffers they are computed in.

    Args:
        first: the first row.
        oldest: the row of its first tap.
        step: rows from one tap to the next.
        skip_from: which of its rows is the first that has a skip connection.
        skip_row: that row's place in the skips.
        stream: these rows of the stream.
        gates: tanh and sigmoid; without a gate, z.
        taps: the convolution's inputs side by side, then their gradient.
        z: their product.
        dz: its gradient.
        dgates: the gradient with respect to the arguments of tanh and sigmoid, or of the activation.
        residual: Wr z, then the gradient of the block's output.
    """

    first: int
    oldest: int
    step: int
    skip_from: int
    skip_row: int
    stream: _Buffer
    gates: _Buffer
    taps: _Buffer
    z: _Buffer
    dz: _Buffer
    dgates: _Buffer
    residual: _Buffer


class _Weights(NamedTuple):
    """The weights of L blocks as the products take them, channels padded to whole registers, or their gradients.

    P is 2 for a filter and a gate, 1 without a gate.

    Attributes:
        convolution: (L, PG, kernel_size C), a row of all taps for each output.
        bias: (L, N, PG) float32, what conditions add included: a row for each of theirs.
        residual: (L, C, G); the last block has none.
        skip: (S, L G).
        skip_bias: (S,).
    """

    convolution: Tensor
    bias: Tensor
    residual: Tensor
    skip: Tensor
    skip_bias: Tensor


class _Stack(torch.autograd.Function):
    """Hands the two passes to autograd."""

    @staticmethod
    def forward(ctx: Any, stack: FusedStack, h: Tensor, table: Tensor | None, *parameters: Tensor) -> Tensor:
        stack.calls += 1
        ctx.stack, ctx.call, ctx.is_conditioned = stack, stack.calls, table is not None
        table = None if table is None else table.detach()
        ctx.weights = stack.pack(table, *(parameter.detach() for parameter in parameters))
        return stack.forward(h, ctx.weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call != ctx.stack.calls or ctx.stack.forward_only:
            raise RuntimeError("expected a fused stack's backward pass right after its forward pass")
        dh, sums = ctx.stack.backward(gradients[0], ctx.weights)
        table, *others = ctx.stack.unpack(sums)
        return None, dh[:, : ctx.stack.inputs].clone(), table if ctx.is_conditioned else None, *others


def _add_product(total: Tensor, outputs: Tensor, inputs: Tensor) -> None:
    """Add outputs^T inputs to a total in float32."""
    if outputs.dtype == torch.float32:
        total.addmm_(outputs.t(), inputs)
    else:
        kernels.add_matrix(total.numpy(), torch.mm(outputs.t(), inputs).view(torch.uint16).numpy())


def _padded(channels: int) -> int:
    return -(-channels // LANES) * LANES
