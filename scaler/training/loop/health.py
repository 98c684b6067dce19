"""When a training run has gone wrong: the loss is no number, or has left every bound."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from scaler.errors import UserError
from scaler.training.loop.plan import TrainingPlan

WINDOW = 100
"""Steps whose median the loss is compared with."""
FEWEST = 10
"""Steps before it is compared."""
TIMES = 1000.0
"""The median, and the run is given up."""
PATIENCE = 5
"""Steps in a row without finite gradients, and the run is given up."""


class DivergedError(UserError):
    """The training does not get anywhere any more.

    Attributes:
        last_good: The checkpoint before; None where there is none.
    """

    def __init__(self, message: str, last_good: Path | None) -> None:
        super().__init__(message)
        self.last_good = last_good


def diverged(wrong: str, where: str, plan: TrainingPlan) -> DivergedError:
    """The error that says what went wrong where, what to try, and what is left."""
    last = plan.last if plan.last.exists() else None
    good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    precision = "" if plan.precision == "fp32" else f", or --precision fp32 in place of {plan.precision}"
    advice = f"try a lower learning rate, a longer warm-up or a smaller clip in the recipe{precision}"
    return DivergedError(f"training stopped: {wrong} ({where}); {advice}; {good}", last)


class Health:
    """Watches the steps of a run."""

    def __init__(self) -> None:
        self._totals: deque[float] = deque(maxlen=WINDOW)
        self._without_gradients = 0

    def check(self, losses: Mapping[str, float], gradient: float, *, rescaled: bool = False) -> str:
        """What is wrong with a step; empty where nothing is.

        Args:
            losses: The parts and their sum, `total`.
            gradient: Norm of the gradient.
            rescaled: Whether a gradient scaler skips such steps and lowers its scale, as with fp16: then a gradient
                without bound is business as usual.
        """
        wrong = [name for name, value in losses.items() if name != "total" and not math.isfinite(value)]
        if wrong or not math.isfinite(losses["total"]):
            return f"the {wrong[0] if wrong else 'total'} loss is {losses[wrong[0] if wrong else 'total']}"
        self._without_gradients = 0 if rescaled or math.isfinite(gradient) else self._without_gradients + 1
        if self._without_gradients >= PATIENCE:
            return f"the gradients have not been finite for {PATIENCE} steps"
        usual = median(self._totals) if len(self._totals) >= FEWEST else math.inf
        self._totals.append(losses["total"])
        if usual > 0 and losses["total"] > TIMES * usual:
            largest = max((name for name in losses if name != "total"), key=lambda name: losses[name])
            return f"the loss is {losses['total']:.3g}, {TIMES:.0f} times the usual {usual:.3g}, mostly {largest}"
        return ""

    def state(self) -> dict[str, object]:
        """Everything that `load` needs to go on."""
        return {"totals": list(self._totals), "without_gradients": self._without_gradients}

    def load(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        totals, without = state["totals"], state["without_gradients"]
        assert isinstance(totals, list) and isinstance(without, int)
        self._totals = deque(totals, maxlen=WINDOW)
        self._without_gradients = without
