"""A pretended GPU: operations run on tensors without numbers, on PyTorch's meta device or fake ones, and are recorded.

What waits for the device or copies back is seen without a GPU; what mixes devices is PyTorch's own error.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal"}


class Recorder(TorchDispatchMode):
    """Records operations.

    Attributes:
        names: of all operations on the device.
        waits: names of those in which the host would wait for the device.
        copies_back: shapes of what was copied from the device to the host.
    """

    def __init__(self):
        super().__init__()
        self.names, self.waits, self.copies_back = [], [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        kinds = {tensor.device.type for tensor in given if tensor.dim()}
        if name in WAITING and any(tensor.device.type != "cpu" for tensor in given):
            self.waits.append(name)
            return True if given[0].dtype == torch.bool else 1
        out = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if name in ("_to_copy", "copy_") and kinds - {"cpu"} and results[0].device.type == "cpu":
            self.copies_back.append(tuple(results[0].shape))
        if kinds - {"cpu"}:
            self.names.append(name)
        return out
