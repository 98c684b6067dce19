"""A power meter that runs anywhere and says what it is told to: for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scaler.runtimes.power import Watts

__all__ = ["FakePower"]


class FakePower:
    """A pretended meter; an implementation of `scaler.runtimes.power.Power`.

    Args:
        watts: Watts by rail, always the same or by the number of the question, counted from 0. What such a function
            leaves out could not be read; what it raises, the meter raises.
        whole: The rails that are the whole; by default the first one.
        rails: Their names; by default those of the first question.

    Attributes:
        questions: How often it was asked.
        closed: Whether it was closed.
    """

    source = "fake"
    scope = "fake board"

    def __init__(
        self,
        watts: Watts | Callable[[int], Watts],
        *,
        whole: Sequence[str] | None = None,
        rails: Sequence[str] | None = None,
    ) -> None:
        self._watts = watts if callable(watts) else lambda _: watts
        self.rails = tuple(self._watts(0)) if rails is None else tuple(rails)
        self.whole = self.rails[:1] if whole is None else tuple(whole)
        self.questions = 0
        self.closed = False

    def sample(self) -> Watts:
        """What it was told to say."""
        question = self.questions
        self.questions += 1
        return self._watts(question)

    def close(self) -> None:
        """Remember it."""
        self.closed = True
