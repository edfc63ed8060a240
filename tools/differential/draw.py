"""Random choices, and the table of those who make cases from them."""

import numpy as np

F32, F64, BOOL = np.float32, np.float64, np.bool_
I8, I16, I32, I64 = np.int8, np.int16, np.int32, np.int64
U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64
NUMBERS = [F32, F32, I32, I64]
MAKERS = {}
OPSETS = {}
FORMULAS = {}


def op(*names, opset=20, formula=None):
    """Register a maker for operators: it gives (inputs, attributes) or (inputs, attributes, outputs).

    An input is `None` where the node leaves it out. A `formula` gives the outputs from the inputs, as lists of arrays,
    and the attributes, for what ONNX Runtime does not have on the CPU.
    """

    def register(make):
        for name in names:
            MAKERS[name], OPSETS[name], FORMULAS[name] = make, opset, formula
        return make

    return register


class Draw:
    """Random choices of one case."""

    def __init__(self, name, seed, limit):
        self.name, self.limit = name, limit
        # How many inputs at the end only the node's subgraphs read, and how many outputs are compared, if not all,
        # or which.
        self.captured, self.compared = 0, None
        # What the operator is registered with, unless its maker chooses.
        self.opset, self.formula = OPSETS[name], FORMULAS[name]
        self.rng = np.random.default_rng([sum(name.encode()) * 7919 + len(name), seed])

    def int(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def of(self, values):
        return values[self.int(0, len(values) - 1)]

    def bool(self):
        return bool(self.int(0, 1))

    def size(self):
        return 0 if self.int(0, 24) == 0 else self.int(1, self.limit)

    def shape(self, low=0, high=4):
        return [self.size() for _ in range(self.int(low, high))]

    def full(self, low=1, high=4):
        """A shape without zeros."""
        return [self.int(1, self.limit) for _ in range(self.int(low, high))]

    def tensor(self, shape, dtype=F32, low=-3.0, high=3.0):
        if dtype == BOOL:
            return self.rng.integers(0, 2, shape).astype(BOOL)
        if np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            near = self.rng.integers(max(-8, info.min), 9, shape)
            far = self.rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
            return np.where(self.rng.integers(0, 8, shape) == 0, far, near.astype(dtype)).astype(dtype)
        # Multiples of 1/64: ties happen, and sums of a few are exact.
        return (np.round(self.rng.uniform(low, high, shape) * 64) / 64).astype(dtype)

    def codes(self, shape, dtype):
        """Integers of the whole range."""
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)

    def pair(self, dtype):
        """Two tensors that broadcast together."""
        shape = self.shape(0, 4)
        other = shape[self.int(0, len(shape)) :]
        a = [1 if self.int(0, 4) == 0 else d for d in shape]
        b = [1 if self.int(0, 4) == 0 else d for d in other]
        return [self.tensor(a, dtype), self.tensor(b, dtype)][:: 1 if self.bool() else -1]

    def axis(self, rank):
        return self.int(-rank, rank - 1)

    def axes(self, rank):
        chosen = [a for a in range(rank) if self.bool()] or [0]
        return [a - rank if self.bool() else a for a in chosen]


def vector(*values):
    return np.array(values, dtype=I64)


def window(d, rank):
    kernel = [d.int(1, 3) for _ in range(rank)]
    strides, dilations = [d.int(1, 3) for _ in range(rank)], [d.int(1, 2) for _ in range(rank)]
    reach = [(k - 1) * dil + 1 for k, dil in zip(kernel, dilations)]
    pads = [d.int(0, k - 1) for k in kernel + kernel]
    size = [max(1, r) + d.int(0, d.limit) for r in reach]
    return kernel, size, {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
