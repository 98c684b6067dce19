"""What `scaler export` says of a file that it wrote: for people and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from scaler.cli.evaluate import tell_broken
from scaler.cli.options import console, say
from scaler.errors import listed

if TYPE_CHECKING:
    from scaler.evaluation.metrics import Metrics
    from scaler.runtimes.tensorrt_version import Version
    from scaler.training.runs.export import Exported, ExportOrder
    from scaler.training.runs.export_check import Agreement
    from scaler.training.runs.export_int8 import Quantised

_NMS = {"none": "NMS left to whoever runs it", "efficient": "TensorRT's NMS inside", "onnx": "ONNX' NMS inside"}
_RUNTIMES = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}


class Told(NamedTuple):
    """The command that builds an engine on a target."""

    version: Version
    command: str

    def as_data(self) -> dict[str, str]:
        """For JSON."""
        return {"version": str(self.version), "command": self.command}


def show(line: str) -> None:
    """Print a line on standard output as it is."""
    console().print(line, markup=False, emoji=False, soft_wrap=True)


def as_data(order: ExportOrder, exported: Exported) -> dict[str, Any]:
    """For JSON."""
    agreement = exported.agreement
    return {
        "file": str(exported.path),
        "bytes": exported.size,
        "family": exported.spec.family,
        "classes": list(exported.spec.classes),
        "input_size": exported.spec.preprocessing.size,
        "opset": order.opset,
        "precision": order.precision,
        "nms": order.decode.nms,
        "batch": None if order.dynamic_batch else order.batch,
        "comparison": None
        if agreement is None
        else {
            "pictures": agreement.pictures,
            "source": agreement.source,
            "generated": agreement.generated,
            "score": agreement.score,
            "px": agreement.px,
            "tolerance": agreement.tolerance._asdict(),
            "detections": agreement.detections and dict(zip(("file", "torch"), agreement.detections, strict=True)),
            "skipped": [row._asdict() for row in agreement.skipped],
        },
        "int8": exported.int8 and _int8_data(order, exported.int8),
    }


def _int8_data(order: ExportOrder, int8: Quantised) -> dict[str, Any]:
    choice = int8.choice
    return {
        "target": order.int8.target,
        "calibration": {
            "method": int8.calibration.method,
            "pictures": int8.calibration.count,
            "source": int8.source,
            "cache": str(int8.cache),
            "skipped": [row._asdict() for row in int8.skipped],
        },
        "layers": int8.layers,
        "float_layers": list(int8.kept),
        "sensitivity": choice
        and {
            "bound": choice.bound,
            "loss": choice.loss,
            "loss_of_all": choice.loss_of_all,
            "alone": [entry._asdict() for entry in choice.alone],
        },
        "loss": int8.loss,
        "ap": None
        if int8.before is None or int8.after is None
        else {
            "dataset": int8.after.dataset,
            "split": int8.after.split,
            "pictures": int8.after.pictures,
            "float": {"ap": int8.before.ap, "ap50": int8.before.ap50},
            "int8": {"ap": int8.after.ap, "ap50": int8.after.ap50},
        },
    }


def print_exported(order: ExportOrder, exported: Exported, told: Told | None) -> None:
    """Print what was written, how far it is from torch, what 8 bits cost, and how an engine is made of it."""
    spec = exported.spec
    pictures = _any_batch(order, exported.agreement) if order.dynamic_batch else f"batch {order.batch}"
    show(
        f"{exported.path}: {spec.family}, {spec.preprocessing.size} px, {len(spec.classes)} classes, "
        f"{exported.size / 1e6:.1f} MB; opset {order.opset}, {order.precision}, {pictures}, {_NMS[order.decode.nms]}"
    )
    if exported.agreement is None:
        show("not compared with torch")
    else:
        _print_agreement(exported.agreement, order)
    if exported.int8 is not None:
        _print_int8(order, exported.int8, exported.agreement)
    if told is not None:
        show(f"engine, built on a target with TensorRT {told.version.major}.{told.version.minor}: {told.command}")
        if order.precision == "fp16":
            say(
                "scaler: fp16 in the file is for runtimes that keep its types; TensorRT before 11 builds FP16 from "
                "fp32 too"
            )


def _any_batch(order: ExportOrder, agreement: Agreement | None) -> str:
    """Of a file with an open batch: with how many pictures it was tried."""
    return "any batch" + (f", tried with up to {min(order.batch, agreement.pictures)}" if agreement else "")


def _print_agreement(agreement: Agreement, order: ExportOrder) -> None:
    tolerance, what = agreement.tolerance, "before its NMS, " if order.decode.nms != "none" else ""
    what = f"of the float network before INT8, {what}" if order.precision == "int8" else what
    show(
        f"largest difference from torch by ONNX Runtime, {what}on {agreement.pictures} pictures ({agreement.source}): "
        f"{agreement.score:.2g} in a score, allowed {tolerance.score:g}; {agreement.px:.2g} px in a corner, allowed "
        f"{tolerance.px:g}"
    )
    if agreement.detections is not None:
        show("detections: {} by the NMS in the file, {} by scaler's of torch's boxes".format(*agreement.detections))
    if agreement.generated:
        say("scaler: compared on generated noise; give --check FOLDER or --data data.toml to compare on real pictures")
    tell_broken(agreement.skipped, agreement.pictures + len(agreement.skipped))


def _print_int8(order: ExportOrder, int8: Quantised, agreement: Agreement | None) -> None:
    calibration = int8.calibration
    if int8.choice is not None:
        show(int8.choice.table())
    kept = f"{len(int8.kept)} of {int8.layers} layers in float" + (f": {listed(int8.kept)}" if int8.kept else "")
    show(
        f"INT8 for {_RUNTIMES[order.int8.target]}: {kept}; calibrated by {calibration.method} on {calibration.count} "
        f"pictures ({int8.source}), remembered in {int8.cache}"
    )
    if len(int8.kept) == int8.layers:
        say("scaler: every layer stayed in float, so that the file is the float network's; allow a larger loss")
    tell_broken(int8.skipped, calibration.count + len(int8.skipped))
    if int8.loss is not None and agreement is not None:
        _print_loss(order, int8, int8.loss, agreement)
    if int8.before is not None and int8.after is not None:
        _print_ap(int8.before, int8.after)


def _print_loss(order: ExportOrder, int8: Quantised, loss: float, agreement: Agreement) -> None:
    from scaler.export.int8_sensitivity import DEFAULT_BOUND  # noqa: PLC0415  (the help needs no numpy)

    show(
        f"loss of detections against the float network on {agreement.pictures} pictures ({agreement.source}): "
        f"{loss:.3f}; 0 is none, 2 is all"
    )
    if agreement.generated:
        say("scaler: a loss on noise says little; give --data data.toml, or --check FOLDER")
    if loss > (DEFAULT_BOUND if order.int8.bound is None else order.int8.bound):
        more = "a smaller bound" if int8.choice is not None else f"--sensitivity {DEFAULT_BOUND:g}"
        say(f"scaler: {more} keeps the layers in float that cost most; --calibration gives other ranges")


def _print_ap(before: Metrics, after: Metrics) -> None:
    """AP of both files in points."""
    pairs = (("AP", before.ap, after.ap), ("AP50", before.ap50, after.ap50))
    told = [
        f"{name} {100 * one:.1f} in float, {100 * other:.1f} in INT8, {100 * (other - one):+.1f}"
        for name, one, other in pairs
        if one is not None and other is not None
    ]
    show(
        f"by ONNX Runtime, both from the bytes of the files, on {after.dataset} {after.split} ({after.pictures} "
        f"pictures): {'; '.join(told)}"
    )
    tell_broken(after.skipped, after.pictures + len(after.skipped))
