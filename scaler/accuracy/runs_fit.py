"""The accuracy of detectors on the user's own data: a published law corrected by the user's runs, as a file.

The file (`scaler accuracy fit` writes it) holds the runs themselves, with the errors of the fit: reading conditions the
regression on the runs again, so that it is right for the laws of the scaler that reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaler import __version__
from scaler.accuracy.prediction import METRIC_NAMES, Z_90, AccuracyModel, Metric, Score
from scaler.accuracy.runs import Run, metric_name, run_from
from scaler.accuracy.runs_regression import Network, Regression, sigmoid
from scaler.accuracy.scores import HeldOut, read_score, score
from scaler.accuracy.shipped import load
from scaler.errors import UsageError, UserError, listed, unknown_name
from scaler.files import Reader, read_json, write_atomic
from scaler.models.detectors.families import Config, family_of, parameters_of

__all__ = ["ENOUGH", "LAW_DATASET", "Recipe", "RunsFit", "fit_runs", "read_fit", "write_fit"]

KIND = "scaler-accuracy-fit"
SCHEMA_VERSION = 1
LAW_DATASET = "coco"
"""The data set of the laws that are corrected: the only one on which every family was published."""
ENOUGH = 3
"""Runs by one recipe from which on a correction is more than an offset."""


class Recipe(NamedTuple):
    """What makes runs comparable beside the data set."""

    name: str
    epochs: int
    pretrained: bool
    """Whether the backbone started from pretrained weights, whichever."""

    def __str__(self) -> str:
        """In words: `quick, 60 epochs, pretrained`."""
        return f"{self.name}, {self.epochs} epochs, {'pretrained' if self.pretrained else 'from scratch'}"


def recipe_of(run: Run) -> Recipe:
    """How a run was trained."""
    return Recipe(run.recipe, run.epochs, bool(run.pretrained))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsFit:
    """A law corrected by runs on one data set, for one recipe."""

    dataset: str
    classes: tuple[str, ...]
    metric: Metric
    recipe: Recipe
    """That predictions are for."""
    runs: Mapping[str, Run]
    """The finished runs of the data set, of all recipes, by the name of their folder."""
    regression: Regression
    corrected: Score | None
    """Errors on runs that the fit has not seen; None where there are fewer than two."""
    law: Score | None
    """Errors of the law alone on the same runs."""

    @property
    def title(self) -> str:
        """Data set and figure: `shapes AP50`."""
        return metric_name(self.dataset, self.metric)

    @property
    def fingerprint(self) -> str:
        """Of what decides about predictions: a study with another one is another study."""
        figures = [(name, asdict(run)) for name, run in self.runs.items()]
        return blake2b(repr((self.metric, self.recipe, figures)).encode(), digest_size=4).hexdigest()

    @property
    def recipes(self) -> Counter[Recipe]:
        """Runs by recipe."""
        return Counter(recipe_of(run) for run in self.runs.values())

    @property
    def lacking(self) -> str:
        """What is missing for a good correction, in a sentence; blank where nothing is."""
        have = self.recipes[self.recipe]
        if have >= ENOUGH:
            return ""
        return (
            f"{have} of the {ENOUGH} runs by this recipe ({self.recipe}) that a correction needs: what is fitted is "
            f"little more than an offset, with a wide interval; train {ENOUGH - have} more, far apart in size"
        )

    @property
    def shift_ap(self) -> tuple[float, float, float]:
        """For a typical network of the runs: the law's AP, the data set's, and half of its 90 % interval, in points."""
        centre, offset = self.regression.centre, self.regression.offset(self.recipe)
        ends = [centre, *(centre + offset.mean + side * Z_90 * offset.sd for side in (0, -1, 1))]
        law, here, low, high = (float(ap) for ap in sigmoid(np.array(ends)))
        return law, here, (high - low) / 2.0

    def trained(self, candidate: str) -> dict[str, Run]:
        """The runs of a candidate by the recipe that predictions are for, by the name of their folder."""
        same = {name: run for name, run in self.runs.items() if recipe_of(run) == self.recipe}
        return {name: run for name, run in same.items() if candidate and run.candidate == candidate}


def fit_runs(
    runs: Mapping[str, Run], metric: Metric = "ap50", dataset: str | None = None, recipe: str | None = None
) -> RunsFit:
    """Correct the published laws by runs, and cross-validate the correction.

    Args:
        runs: By the name of their folder; those that are not finished, or of other data sets, are left out.
        metric: Which figure; AP50 is COCO's (101 points), also where the data set is VOC.
        dataset: Name of the data set; may be None where the runs are of one.
        recipe: Name of the recipe that predictions are for; None takes the one with most runs, of equals the last.

    Raises:
        UserError: No finished run, several data sets to choose from, or runs of one data set with other classes.
        UsageError: No such data set or recipe among the runs.
    """
    mine = _of_dataset({name: run for name, run in runs.items() if run.finished and run.metrics}, dataset)
    classes = _classes(mine)
    first = next(iter(mine.values()))
    wanted = _recipe(mine, recipe)
    networks = [network_of(run.config, recipe_of(run), metric) for run in mine.values()]
    measured = [run.figure(metric) for run in mine.values()]
    corrected, law = _cross_validated(mine, networks, measured)
    return RunsFit(
        dataset=first.dataset,
        classes=classes,
        metric=metric,
        recipe=wanted,
        runs=mine,
        regression=Regression.of(networks, measured),
        corrected=corrected,
        law=law,
    )


@cache
def law_of(family: str, metric: Metric) -> AccuracyModel:
    """The published law that is corrected."""
    return load(family, LAW_DATASET, metric)


def network_of(config: Config, recipe: Recipe, metric: Metric) -> Network:
    """What the regression knows of a configuration."""
    return networks_of([config], recipe, metric)[0]


def networks_of(configs: Sequence[Config], recipe: Recipe, metric: Metric) -> list[Network]:
    """What the regression knows of configurations of one family."""
    family = family_of(configs[0]).name
    mean, low, high, _ = law_of(family, metric).predict_many(configs)
    doubts = (high - low) / (2.0 * Z_90)
    return [
        Network(float(ap), float(doubt), config.resolution, family, _backbone(config), _identity(config), recipe)
        for config, ap, doubt in zip(configs, mean, doubts, strict=True)
    ]


def _identity(config: Config) -> tuple[tuple[str, Any], ...]:
    return (("family", family_of(config).name), *parameters_of(config).items())


def _backbone(config: Config) -> tuple[Any, ...]:
    """What networks on the same backbone have in common."""
    return tuple(getattr(config, name, None) for name in ("backbone", "variant", "width"))


def _of_dataset(runs: dict[str, Run], dataset: str | None) -> dict[str, Run]:
    known = Counter(run.dataset for run in runs.values())
    if not known:
        raise UserError("no finished run with metrics: train a winner first, with scaler train")
    if dataset is None and len(known) > 1:
        told = [f"{name} ({count})" for name, count in known.items()]
        raise UsageError(f"the runs are of several data sets, {listed(told)}: choose one with --dataset")
    name = dataset or next(iter(known))
    if name not in known:
        raise UsageError(unknown_name("data set among the finished runs", name, known))
    return {folder: run for folder, run in runs.items() if run.dataset == name}


def _classes(runs: Mapping[str, Run]) -> tuple[str, ...]:
    (first, run), *others = runs.items()
    for name, other in others:
        if other.classes != run.classes:
            raise UserError(
                f"the runs {first} and {name} are both of {run.dataset!r}, but of other classes "
                f"({len(run.classes)} and {len(other.classes)}): rename one of the data sets"
            )
    return run.classes


def _recipe(runs: Mapping[str, Run], name: str | None) -> Recipe:
    counts = Counter(recipe_of(run) for run in sorted(runs.values(), key=lambda run: run.created, reverse=True))
    known = {recipe.name for recipe in counts}
    if name is not None and name not in known:
        raise UsageError(unknown_name("recipe among the finished runs", name, sorted(known)))
    return max((recipe for recipe in counts if name in (None, recipe.name)), key=counts.__getitem__)


def _cross_validated(
    runs: Mapping[str, Run], networks: Sequence[Network], measured: Sequence[float]
) -> tuple[Score | None, Score | None]:
    """Errors of the correction with each run left out, with its repeats by the same recipe, and of the law alone."""
    if len(runs) < 2:
        return None, None
    corrected: list[HeldOut] = []
    law: list[HeldOut] = []
    for place, (run, network) in enumerate(zip(runs.values(), networks, strict=True)):
        rest = [
            other
            for other, one in enumerate(networks)
            if (one.network, one.recipe) != (network.network, network.recipe)
        ]
        refit = Regression.of([networks[other] for other in rest], [measured[other] for other in rest])
        found = [float(values[0]) for values in refit.predict([network])]
        half = Z_90 * network.law_sd_ap
        alone = [network.law_ap, max(network.law_ap - half, 0.0), min(network.law_ap + half, 100.0)]
        for rows, (mean, low, high) in ((corrected, found), (law, alone)):
            label = run.config.name
            rows.append(HeldOut(run.config, measured[place], mean, low, high, label, run.family, run.recipe))
    return _score(corrected), _score(law)


def _score(rows: Sequence[HeldOut]) -> Score:
    """`score`, with an order of 0 where all measured or all predicted are equal."""
    tied = any(len(set(values)) < 2 for values in ([r.published for r in rows], [r.predicted for r in rows]))
    if not tied:
        return score(rows)
    errors = [abs(row.error_ap) for row in rows]
    widths = [(row.high - row.low) / 2.0 for row in rows]
    covered = float(np.mean([row.covered for row in rows]))
    return Score(len(rows), float(np.mean(errors)), 0.0, covered, float(np.mean(widths)))


def write_fit(fit: RunsFit, path: Path | str) -> None:
    """Write a fit, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    offset, slope = fit.regression.offset(fit.recipe), fit.regression.slope
    data = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "scaler_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": fit.dataset,
        "classes": fit.classes,
        "metric": fit.metric,
        "law_dataset": LAW_DATASET,
        "recipe": fit.recipe._asdict(),
        "posterior": {
            "centre_logit": fit.regression.centre,
            "offset_logit": offset._asdict(),
            "slope": slope._asdict(),
            "noise_ap": fit.regression.noise_ap,
        },
        "scores": {"corrected": _plain(fit.corrected), "law": _plain(fit.law)},
        "runs": [{"folder": name, "run": run.as_data()} for name, run in fit.runs.items()],
    }
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_fit(path: Path | str) -> RunsFit:
    """Read a fit; the regression is conditioned on its runs anew.

    Raises:
        FileError: The file is missing, cut off or of another kind, or does not fit together; one line.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("kind", (KIND,))
    reader.choice("law_dataset", (LAW_DATASET,))
    for key in ("scaler_version", "created"):
        reader.string(key)
    table, posterior, scores = (reader.table(key) for key in ("recipe", "posterior", "scores"))
    recipe = Recipe(table.string("name"), table.integer("epochs", minimum=0), table.boolean("pretrained"))
    _check_posterior(posterior)
    entries = reader.tables("runs", at_least=1)
    runs = {entry.string("folder"): run_from(entry.table("run")) for entry in entries}
    metric: Metric = reader.choice("metric", tuple(METRIC_NAMES))
    dataset, classes = reader.string("dataset"), reader.strings("classes", at_least=1)
    corrected, law = (_read_score(scores, key) for key in ("corrected", "law"))
    reader.finish()
    if any((run.dataset, run.classes) != (dataset, classes) or run.metrics is None for run in runs.values()):
        what = f"a run that is not a measured one of {dataset!r} with its {len(classes)} classes"
        raise reader.error("runs", what, todo="write it again with scaler accuracy fit")
    if recipe not in {recipe_of(run) for run in runs.values()}:
        raise reader.error("recipe", f"no run by {recipe}", todo="write it again with scaler accuracy fit")
    networks = [network_of(run.config, recipe_of(run), metric) for run in runs.values()]
    measured = [run.figure(metric) for run in runs.values()]
    return RunsFit(
        dataset=dataset,
        classes=classes,
        metric=metric,
        recipe=recipe,
        runs=runs,
        regression=Regression.of(networks, measured),
        corrected=corrected,
        law=law,
    )


def _check_posterior(reader: Reader) -> None:
    """The file's numbers for people; what predicts is the regression."""
    for key in ("centre_logit", "noise_ap"):
        reader.number(key)
    for key in ("offset_logit", "slope"):
        table = reader.table(key)
        table.number("mean")
        table.number("sd", minimum=0)


def _plain(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else asdict(score)


def _read_score(reader: Reader, key: str) -> Score | None:
    return None if reader.raw(key) is None else read_score(reader.table(key))
