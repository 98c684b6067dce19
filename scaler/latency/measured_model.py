"""The fitted numbers that stand beside the rows of a measured table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaler.latency.kernel_regression import Hyper


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """What stands beside the rows of a measured table."""

    hypers: Mapping[str, Hyper]
    """Of the kernel regression, by group."""
    factor: float
    """Of the sum of the kernel times."""
    constant_ms: float
    """Time of a network beside its kernels."""
    residual_log_sd: float
    """Scatter of the logarithm of measured networks around their predictions, networks left out."""
    kernel_share: float
    """Share of the kernels' own uncertainty that adds up over a network instead of cancelling."""
    exponent: float = 1.0
    """Of the sum: slightly above 1 where larger networks fall out of caches in which smaller ones fit."""
    reference: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The reference network: its family, its parameters and `classes`; empty where it is not known."""
    reference_ms: float
    """Time of the reference network when the table was made: later measurements beside it tell drift from error."""
