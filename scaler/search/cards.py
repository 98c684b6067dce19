"""Where the numbers come from: a card for each predictor, and the published models as reference points."""

from __future__ import annotations

from scaler.accuracy import NOISE_AP, AccuracyModel
from scaler.latency.estimator import Estimator
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.table import TableInfo, list_tables
from scaler.latency.transfer import ESTIMATE_LOG_SD
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import yolo_ret_rows
from scaler.search.evaluation import METRICS, Evaluator
from scaler.search.result import Interval, ModelCard, Reference
from scaler.space import Params

PAPER = "YOLO-ReT (WACV 2022), Table 5"


def accuracy_card(model: AccuracyModel) -> ModelCard:
    """Of the accuracy predictor."""
    rows, backbones = model.leave_one_out, model.leave_one_backbone_out
    return ModelCard(
        name="YOLO-ReT accuracy law",
        provenance="calibrated",
        fitted_on=f"{model.n_rows} published detectors (YOLO-ReT, WACV 2022)",
        errors={
            "leave-one-detector-out mean error": f"{rows.mean_absolute_error_ap:.2f} AP",
            "leave-one-backbone-out mean error": f"{backbones.mean_absolute_error_ap:.2f} AP",
            "Kendall tau": f"{rows.kendall_tau:.2f} / {backbones.kendall_tau:.2f}",
            "coverage of 90 % intervals": f"{100 * rows.coverage:.0f} / {100 * backbones.coverage:.0f} %",
        },
        notes=(
            f"differences under {NOISE_AP:g} AP are noise in the published single training runs",
            "predicts the paper's training recipe with ImageNet weights; another recipe gives another AP",
        ),
    )


def latency_card(estimator: Estimator) -> ModelCard:
    """Of the latency predictor of a device."""
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
            "leave-one-network-out mean error": f"{errors['leave_one_network_out_error']:.1f} %",
            "leave-one-backbone-out mean error": f"{errors['leave_one_backbone_out_error']:.1f} %",
            "coverage of 90 % intervals": f"{errors['leave_one_network_out_coverage']:.0f} / "
            f"{errors['leave_one_backbone_out_coverage']:.0f} %",
        },
        notes=(
            "fitted to published frame rates, not measured on a device by scaler",
            "the overhead is the paper's post-processing with 20 classes; --overhead-ms replaces it with yours",
        ),
    )


def _others(estimator: Estimator) -> tuple[str, ...]:
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
    """The nine published YOLO-ReT models beside what scaler predicts for them."""
    found = []
    for row in yolo_ret_rows():
        config = row.detector() if row.table == "5" else None
        ap = row.ap50_voc if evaluator.dataset == "voc" else row.ap50_coco
        if config is None or ap is None or not evaluator.space.contains(params_of(config)):
            continue
        params = evaluator.space.canonical(params_of(config))
        predicted = evaluator.ap(params)
        frame = estimator.estimate(evaluator.network(params).graph)
        found.append(
            Reference(
                name=f"YOLO-ReT-{short_name(config)}@{config.resolution}",
                source=f"{PAPER}, {METRICS[evaluator.dataset]}",
                published_ap=ap,
                published_fps=getattr(row, f"fps_{estimator.device.id}", None),
                predicted_ap=Interval(predicted.mean, predicted.low, predicted.high),
                predicted_fps=Interval(
                    1000 / float(frame.frame[0]), 1000 / float(frame.high[0]), 1000 / float(frame.low[0])
                ),
            )
        )
    return tuple(found)


def params_of(config: YoloRetConfig) -> Params:
    """The parameters of a configuration, the number of classes apart."""
    return {
        name: getattr(config, name)
        for name in ("backbone", "width", "drop", "neck", "repeats", "rfcr", "shortcut", "resolution")
    }


def short_name(config: YoloRetConfig) -> str:
    """The paper's short name of a backbone: `M0.75`, `EB3`."""
    family, _, variant = config.backbone.partition("-")
    return f"M{config.width:g}" if family == "mobilenetv2" else f"EB{variant.removeprefix('b')}"


def warm_starts(evaluator: Evaluator) -> tuple[Params, ...]:
    """Every published detector that the space contains, each once: where a search starts."""
    found: dict[str, Params] = {}
    for row in yolo_ret_rows():
        config = row.detector()
        if config is not None and evaluator.space.contains(params_of(config)):
            params = evaluator.space.canonical(params_of(config))
            found.setdefault(evaluator.space.candidate_id(params), params)
    return tuple(found.values())
