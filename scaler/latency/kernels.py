"""A kernel: what a runtime really launches after fusion, and the key under which its time is looked up."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

KernelOp: TypeAlias = Literal["conv", "depthwise", "linear", "pool", "reduce", "resize", "pointwise", "copy"]
"""`pointwise`: a chain of element-wise operators; `reduce`: global pooling; `copy`: a concat input moved."""


class Kernel(NamedTuple):
    """One launch, for one picture; sizes in elements."""

    op: KernelOp
    kernel: int
    stride: int
    groups: int
    c_in: int
    c_out: int
    h_in: int
    w_in: int
    h_out: int
    w_out: int
    activation: str
    """Fused activation, `none` where there is none."""
    inputs: int
    """Number of full-size tensors read: 2 for a convolution with a fused residual addition."""

    @property
    def weights(self) -> int:
        """Weights and biases read."""
        if self.op in ("conv", "depthwise", "linear"):
            return self.kernel**2 * self.c_in * self.c_out // self.groups + self.c_out
        return 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates; an element-wise kernel counts none."""
        if self.op in ("conv", "depthwise", "linear"):
            return self.kernel**2 * self.c_in // self.groups * self.outputs
        return 0

    @property
    def outputs(self) -> int:
        """Elements written."""
        return self.c_out * self.h_out * self.w_out

    @property
    def moved(self) -> int:
        """Elements read and written, weights included."""
        read = self.c_in * self.h_in * self.w_in
        if self.op in ("conv", "depthwise", "linear"):
            return read + self.weights + self.outputs * self.inputs
        return read * self.inputs + self.outputs
