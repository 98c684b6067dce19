"""What is wrong with a data set, by kind: collected while labels are read, completed by `scaler.data.check`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from scaler.errors import FileError

Severity: TypeAlias = Literal["error", "warning", "note"]
"""`error`: cannot be used until it is corrected; `warning`: training goes on without it; `note`: worth knowing."""
Kind: TypeAlias = Literal[
    "unusable",
    "missing-picture",
    "corrupt-picture",
    "unlabelled-picture",
    "orphan-label",
    "empty-box",
    "outside-box",
    "clipped-box",
    "doubled-box",
    "other-size",
    "doubled-picture",
    "leaked-picture",
    "absent-class",
    "no-objects",
]


class Meaning(NamedTuple):
    """What a kind of finding says."""

    severity: Severity
    title: str
    """Of what the finding's places are."""
    consequence: str
    """What scaler does about it, or what the user should."""


MEANINGS: dict[Kind, Meaning] = {
    "unusable": Meaning("error", "unusable", "correct it"),
    "missing-picture": Meaning("warning", "pictures missing", "left out"),
    "corrupt-picture": Meaning("warning", "pictures corrupt", "left out; fetch them again"),
    "unlabelled-picture": Meaning("warning", "pictures without a label file", "left out; of YOLO: background"),
    "orphan-label": Meaning("warning", "labels without their picture", "left out"),
    "empty-box": Meaning("warning", "boxes empty or inverted", "dropped"),
    "outside-box": Meaning("warning", "boxes wholly outside the picture", "dropped"),
    "clipped-box": Meaning("warning", "boxes partly outside the picture", "clipped to it"),
    "doubled-box": Meaning("warning", "boxes twice", "they count twice; remove one"),
    "other-size": Meaning("warning", "pictures of another size than their labels say", "are the boxes shifted?"),
    "doubled-picture": Meaning("warning", "pictures twice in a split", "remove one"),
    "leaked-picture": Meaning("warning", "pictures in more than one split", "the accuracy will flatter: remove them"),
    "absent-class": Meaning("warning", "classes without an object", "they cannot be learnt or judged"),
    "no-objects": Meaning("note", "pictures without an object", "they teach what is background"),
}


class Finding(NamedTuple):
    """One kind of finding in one split."""

    kind: Kind
    split: str
    """Empty where it concerns several."""
    places: tuple[str, ...]
    """Where, an entry each: a picture, a label file, a box, or the whole sentence of an error."""

    @property
    def meaning(self) -> Meaning:
        """What it says."""
        return MEANINGS[self.kind]


class Notes:
    """Collects the findings of one split while it is read.

    Attributes:
        strict: Whether what makes a split unusable is raised at once.
    """

    def __init__(self, split: str, *, strict: bool = True) -> None:
        self.strict = strict
        self._split = split
        self._places: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, places: Iterable[str]) -> None:
        """Note where something was found."""
        if new := list(places):
            self._places.setdefault(kind, []).extend(new)

    def refuse(self, error: FileError) -> None:
        """Raise what makes the split unusable, or note it where all such errors are wanted."""
        if self.strict:
            raise error
        self.add("unusable", [str(error)])

    @property
    def refused(self) -> bool:
        """Whether something makes the split unusable."""
        return "unusable" in self._places

    def findings(self) -> tuple[Finding, ...]:
        """What was noted, the gravest first."""
        return tuple(Finding(kind, self._split, tuple(self._places[kind])) for kind in MEANINGS if kind in self._places)
