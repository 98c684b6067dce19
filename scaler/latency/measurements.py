"""All published times of a device as measurements: which network, by which protocol, in which power mode."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from scaler.devices import Precision
from scaler.graph.graph import Graph
from scaler.latency.protocol import NEVER_FITTED, PROTOCOLS, YOLO_RET, YOLO_RET_BASELINE, YOLO_RET_CLASSIFIER, Protocol
from scaler.models.detectors import yolo_ret
from scaler.models.zoo import NETWORKS, network
from scaler.published import YoloRetRow, engine_rows, yolo_ret_rows

PAPER_DEVICES = ("nano", "nx", "agx")
"""What the YOLO-ReT paper timed its detectors on."""
PAPER = "YOLO-ReT"
"""Source of the rows whose errors are reported apart."""

BASELINE_DOUBT = {"yolov3-tiny": 0.3, "yolov4-tiny": 0.3, "yolov4-tiny-3l": 1.0}
"""Other authors' detectors in the paper. Tiny-YOLOv3 takes 10.9 ms on AGX Xavier and 15.0 on Xavier NX, 1.5 times what
its work and the overhead of the paper's own detectors give; implementation and post-processing are not described.
YOLOv4-tiny-3l at 608 px is given 40.2 ms on the Nano, 1.2 times YOLOv4-tiny at 416 px for 2.6 times the work, which
already takes three quarters of the Nano's peak there: beyond what the board computes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """One published time."""

    label: str
    source: str
    """Whose it is: all of them are left out together in cross-validation by source."""
    group: str
    """Network: all its measurements, of any source, are left out together in cross-validation."""
    backbone: str
    """Shared by its detectors and its classifier, which are left out together too."""
    graph: Graph
    protocol: Protocol
    mode: str | None
    """Power mode; None where the source states none: the profile's default."""
    ms: float
    doubt: float = 0.0
    """Standard deviation of the logarithm on top of that of other rows."""
    reported: bool = False
    """Whether it counts in the reported errors of YOLO-ReT: detectors of Tables 2 to 5 with a published neck."""
    fitted: bool = True
    """BiFPN rows are not fitted: that design is ours, not the paper's."""

    @property
    def of_detector(self) -> bool:
        """Whether it is a row of the paper's own detectors, which come in families; other networks stand alone."""
        return self.protocol is YOLO_RET


@cache
def measurements(device: str, precision: Precision = "fp16") -> tuple[Measurement, ...]:
    """All published times of a device that we can build the network of."""
    paper = (*_detector_rows(device), *_other_rows_of_the_paper(device)) if precision == "fp16" else ()
    return (*paper, *_engine_rows(device, precision))


def unbuilt(device: str, precision: Precision = "fp16") -> dict[str, int]:
    """How many published times each source has of networks that we cannot build: listed, never used."""
    found: dict[str, int] = {}
    for row in engine_rows():
        if (row.device, row.precision) == (device, precision) and row.network not in NETWORKS:
            found[row.source] = found.get(row.source, 0) + 1
    return found


def _detector_rows(device: str) -> list[Measurement]:
    found = []
    for row in yolo_ret_rows():
        config, fps = row.detector(), getattr(row, f"fps_{device}", None)
        if config is None or fps is None:
            continue
        ours = config.neck == "bifpn"
        found.append(
            Measurement(
                label=f"Table {row.table}: {config.name}",
                source=PAPER,
                group=config.name,
                backbone=f"{config.backbone}-{config.width:g}" if config.backbone == "mobilenetv2" else config.backbone,
                graph=yolo_ret.build(config),
                protocol=YOLO_RET,
                mode=None,
                ms=1000 / fps,
                reported=not ours,
                fitted=not ours,
            )
        )
    return found


def _other_rows_of_the_paper(device: str) -> list[Measurement]:
    """Classifiers and other authors' detectors."""
    found = []
    for row in yolo_ret_rows():
        name, fps = _zoo_name(row), getattr(row, f"fps_{device}", None)
        if name is None or fps is None:
            continue
        classifier = row.table == "1"
        found.append(
            Measurement(
                label=f"Table {row.table}: {name}",
                source=PAPER,
                group=_group(name),
                backbone=_group(name),
                graph=network(name, row.resolution),
                protocol=YOLO_RET_CLASSIFIER if classifier else YOLO_RET_BASELINE,
                mode=None,
                ms=1000 / fps,
                doubt=BASELINE_DOUBT.get(name, 0.0),
            )
        )
    return found


def _zoo_name(row: YoloRetRow) -> str | None:
    """The zoo's name of a classifier or baseline, where it is there as the paper has it."""
    if row.rfcr:
        return None
    names = {
        ("1", "ResNet50", ""): "resnet-50",
        ("1", "MobileNetV2", "1.4"): "mobilenetv2-1.4",
        ("1", "DarkNet19", ""): "darknet-19",
        ("1", "DarkNet53", ""): "darknet-53",
        ("1", "CSPDarkNet53", ""): "cspdarknet-53",
        ("1", "EfficientNet", "B0"): "efficientnet-b0",
        ("1", "EfficientNet", "B3"): "efficientnet-b3",
        ("5", "Tiny-YOLOv3", ""): "yolov3-tiny",
        ("7", "YOLOv4-tiny (CSPDarknet53-tiny)", "2-scale"): "yolov4-tiny",
        ("7", "YOLOv4-tiny (CSPDarknet53-tiny)", "3l"): "yolov4-tiny-3l",
    }
    return names.get((row.table, row.backbone, row.variant))


def _engine_rows(device: str, precision: Precision) -> list[Measurement]:
    return [
        Measurement(
            label=f"{row.source}: {row.network}, {row.resolution}",
            source=row.source,
            group=_group(row.network),
            backbone=_group(row.network),
            graph=network(row.network, row.resolution),
            protocol=PROTOCOLS[row.protocol],
            mode=row.power_mode or None,
            ms=row.latency_ms,
            doubt=row.doubt,
        )
        for row in engine_rows()
        if (row.device, row.precision) == (device, precision)
        and row.network in NETWORKS
        and row.protocol not in NEVER_FITTED
    ]


def _group(name: str) -> str:
    """Batch normalisation folds away: with and without it is the same engine."""
    return name.removesuffix("-bn")
