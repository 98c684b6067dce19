"""Where the numbers come from: a card for the latency, and the published models as reference points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from scaler.devices import Precision
from scaler.latency.corrected import Base, CorrectedEstimator
from scaler.latency.estimator import Estimator
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.protocol import MOST_BOXES
from scaler.latency.table import TableInfo, list_tables
from scaler.latency.transfer import ESTIMATE_LOG_SD
from scaler.search.evaluation import Evaluator
from scaler.search.precision import INT8, PRECISION, Engines, PrecisionSpace
from scaler.search.predictors import Predictor
from scaler.search.published_models import published_models, starting_points
from scaler.search.result import Interval, ModelCard, Reference
from scaler.space import Params


def latency_card(engines: Engines | Estimator) -> ModelCard:
    """Of the latency predictor of a device; of several precisions, each with its name."""
    if not isinstance(engines, Engines):
        return _card(engines)
    cards = {estimator.precision.upper(): _card(estimator) for estimator in engines.estimators}
    if len(cards) == 1:
        return _card(engines.usual)
    return ModelCard(
        name="; ".join(dict.fromkeys(card.name for card in cards.values())),
        provenance=engines.usual.provenance,
        fitted_on="; ".join(dict.fromkeys(f"{name}: {card.fitted_on}" for name, card in cards.items())),
        errors={f"{name}: {what}": said for name, card in cards.items() for what, said in card.errors.items()},
        notes=tuple(dict.fromkeys(f"{name}: {note}" for name, card in cards.items() for note in card.notes)),
    )


def accuracy_card(accuracy: Predictor, precisions: Iterable[Precision]) -> ModelCard:
    """Of the accuracy predictor; with what is to be known of INT8 where that is searched."""
    card = accuracy.card
    if INT8 not in precisions:
        return card
    note = (
        "what INT8 costs is predicted from losses that others published of other detectors, and contained in the "
        "accuracy: scaler accuracy validate --int8 says how wrong; FP16 costs less than the noise"
    )
    return replace(card, notes=(note, *card.notes))


def _card(estimator: Estimator) -> ModelCard:
    if not isinstance(estimator, CorrectedEstimator):
        return _of_base(estimator)
    card = _of_base(estimator.base)
    count, found = len(estimator.observed), estimator.cross_validation
    errors = {}
    if found is not None:
        before = f"{100 * found.error_before:.1f} % uncorrected"
        errors["mean error on them, each left out"] = f"{100 * found.error:.1f} % ({before})"
        errors["coverage of corrected 90 % intervals"] = f"{100 * found.coverage:.0f} %"
    left = Counter(estimator.left_out)
    return replace(
        card,
        name=f"{card.name}, corrected by {count} measured networks",
        errors={**card.errors, **errors},
        notes=(*card.notes, *(f"{many} measured networks are not used: {why}" for why, many in left.items())),
    )


def _of_base(estimator: Base) -> ModelCard:
    info = estimator.info
    if estimator.provenance == "estimated" or info is None:
        origin = f"{estimator.device.name}'s own model" if info else "the models of the calibrated devices"
        return ModelCard(
            name="roofline from the data sheet",
            provenance="estimated",
            fitted_on=f"{origin}, carried over to this device's data sheet, power mode and precision",
            errors={"90 % interval": f"x/÷ {2.718281828 ** (1.645 * ESTIMATE_LOG_SD):.2f}"},
            notes=(
                "nothing was measured in this setting: profile the device before relying on it",
                *_others(estimator),
            ),
        )
    if isinstance(info.model, MeasuredModel):
        return _measured_card(info)
    errors = info.validation
    return ModelCard(
        name=f"device model, {info.runtime} {info.precision}, {info.power_mode}",
        provenance=info.provenance,
        fitted_on=f"{info.networks} networks ({', '.join(info.sources)})",
        errors={
            "leave-one-network-out mean error": f"{errors['leave_one_model_out_error']:.1f} %",
            "leave-one-source-out mean error": f"{errors['leave_one_source_out_error']:.1f} %",
            "coverage of 90 % intervals": f"{errors['leave_one_model_out_coverage']:.0f} / "
            f"{errors['leave_one_source_out_coverage']:.0f} %",
        },
        notes=(
            "fitted to published frame rates, not measured on a device by scaler",
            "the overhead is the YOLO-ReT paper's post-processing with 20 classes, as for at most "
            f"{MOST_BOXES:,} candidate boxes; --overhead-ms replaces it with yours",
        ),
    )


def _others(estimator: Base) -> tuple[str, ...]:
    """The tables that a device has for other settings than the one asked for."""
    known = [
        f"{info.precision} in {info.power_mode} ({info.provenance})"
        for info in list_tables()
        if info.device == estimator.device.id
    ]
    return (f"this device has tables for {', '.join(known)}",) if known else ()


def _measured_card(info: TableInfo) -> ModelCard:
    errors = info.validation
    return ModelCard(
        name=f"latency table, {info.runtime} {info.runtime_version} {info.precision}, {info.power_mode}",
        provenance=info.provenance,
        fitted_on=f"{info.networks} networks measured on {info.processor} on {info.created}"
        if info.provenance == "measured"
        else "; ".join(info.sources),
        errors={
            "leave-networks-out mean error": f"{errors['error']:.1f} %",
            "within 10 %": f"{errors['within_10']:.0f} %",
            "coverage of 90 % intervals": f"{errors['coverage']:.0f} %",
            "spread of the measurements themselves": f"{errors['noise']:.1f} %",
        },
        notes=(
            "engine only: pre- and post-processing come on top; --overhead-ms adds yours",
            *info.conditions,
        ),
    )


def references(evaluator: Evaluator, estimator: Estimator) -> tuple[Reference, ...]:
    """The published models that a space contains beside what scaler predicts for them."""
    metric = evaluator.accuracy.metric
    found = []
    for model in published_models().values():
        params = evaluator.space.find(model.config)
        if params is None or metric not in model.ap:
            continue
        predicted = evaluator.ap(params)
        frame = estimator.estimate(evaluator.network(params).graph)
        found.append(
            Reference(
                name=model.name,
                source=f"{model.source}, {metric}",
                published_ap=model.ap[metric],
                published_fps=model.fps.get(estimator.device.id),
                predicted_ap=Interval(predicted.mean, predicted.low, predicted.high),
                predicted_fps=Interval(
                    1000 / float(frame.frame[0]), 1000 / float(frame.high[0]), 1000 / float(frame.low[0])
                ),
            )
        )
    return tuple(found)


def warm_starts(evaluator: Evaluator) -> tuple[Params, ...]:
    """Every published detector that the space contains, each once at each precision: where a search starts."""
    found: dict[str, Params] = {}
    for config in starting_points():
        if (params := evaluator.space.find(config)) is not None:
            found.setdefault(evaluator.space.candidate_id(params), params)
    if isinstance(evaluator.space, PrecisionSpace):
        return tuple({**params, PRECISION: one} for one in evaluator.space.precisions for params in found.values())
    return tuple(found.values())
