"""How well an engine finds objects, by the outputs that a bundle brought back: the same rule as `scaler evaluate`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from scaler.data.data_file import read_splits
from scaler.data.dataset import Dataset, Picture
from scaler.data.images import BrokenPictureError, read_bytes
from scaler.data.preprocessing import Fit, fit
from scaler.deploy.bundle_results import Deployed, Outputs, PicturePlan
from scaler.errors import FileError, UserError
from scaler.evaluation.detect import selected
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.evaluate import evaluate, label_map
from scaler.evaluation.metrics import Metrics, score
from scaler.evaluation.onnx_metadata import OnnxMetadata
from scaler.runtimes.engine_facts import digest

__all__ = ["Judged", "accuracy_here", "accuracy_of", "found_in_outputs"]


class Judged(NamedTuple):
    """An engine by the objects of a data set."""

    metrics: Metrics
    pictures: tuple[Picture, ...]
    """On which it was judged."""
    total: int
    """Pictures of the split."""


def accuracy_of(deployed: Deployed, data: Path) -> Judged:
    """Judge the outputs of a device by the labels of a data set here.

    Args:
        deployed: What came back.
        data: The `data.toml` that the bundle was written with.

    Raises:
        FileError: The data set lacks the split or a picture of the bundle, or a picture is another one here.
        UnsupportedError: Its classes are others.
        UserError: No outputs came back.
        MissingExtraError: The package `faster-coco-eval` is not installed.
    """
    dataset = _dataset(deployed, data)
    metadata, labels = deployed.metadata, label_map(deployed.metadata.classes, dataset.classes)
    selection = _selection(metadata)
    known: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in dataset.pictures:
        known[picture.path.name].append(picture)
    pictures: list[Picture] = []
    found: list[Detections] = []
    for plan, outputs in deployed.outputs():
        pictures.append(_same(plan, known, data))
        place = fit(plan.width, plan.height, metadata.preprocessing.size)
        detections = found_in_outputs(outputs, metadata, place, selection, plan.name)
        found.append(replace(detections, labels=labels[detections.labels]))
    if not found:
        why = f": {deployed.problems[0]}" if deployed.problems else ""
        raise UserError(f"no outputs of pictures came back{why}; run measure.sh on the device to its end")
    truth = [picture.boxes for picture in pictures]
    metrics = score(truth, found, dataset.classes, dataset=dataset.name, split=dataset.split, selection=selection)
    return Judged(metrics, tuple(pictures), len(dataset.pictures))


def accuracy_here(deployed: Deployed, judged: Judged, model: Path, data: Path) -> Metrics:
    """The same ONNX file on the same pictures by ONNX Runtime, for comparison.

    Raises:
        FileError: It is not the file that was deployed.
        UserError: It cannot be run here.
    """
    from scaler.evaluation.onnx_detector import OnnxDetector  # noqa: PLC0415

    if not model.is_file() or digest(model.read_bytes()) != deployed.facts.model_sha256:
        what = "is not the file that was deployed" if model.is_file() else "no such file"
        raise FileError(model, "", what, todo=f"name the {deployed.facts.model} that the bundle was written of")
    dataset = replace(_dataset(deployed, data), pictures=judged.pictures)
    return evaluate(OnnxDetector(model, "cpu"), dataset, judged.metrics.selection)


def found_in_outputs(
    outputs: Outputs, metadata: OnnxMetadata, place: Fit, selection: Selection, name: str
) -> Detections:
    """Objects of a picture, in its own pixels: by scaler's NMS, or as the NMS inside the engine left them.

    Args:
        outputs: Of the engine for one picture.
        metadata: Of the file that the engine was made of.
        place: How the picture lies in the input.
        selection: Which boxes are kept.
        name: Of the picture, for messages.

    Raises:
        FileError: The outputs are not those of such a file.
    """
    try:
        if metadata.nms is None:
            (boxes,), (scores,) = outputs["boxes"], outputs["scores"]
            if scores.shape != (len(boxes), len(metadata.classes)):
                raise ValueError
            return selected(boxes, scores, place, selection)
        (count,), (corners,) = outputs["num_detections"].astype(int).reshape(-1), outputs["detection_boxes"]
        (scores,), (classes,) = outputs["detection_scores"], outputs["detection_classes"].astype(int)
        if (
            not 0 <= count <= len(corners)
            or not ((classes[:count] >= 0) & (classes[:count] < len(metadata.classes))).all()
        ):
            raise ValueError
        return Detections.of(place.back(corners[:count]), scores[:count], classes[:count])
    except (KeyError, ValueError):
        shapes = ", ".join(f"{output} {list(value.shape)}" for output, value in outputs.items())
        raise FileError(name, "", f"outputs of another network: {shapes}") from None


def _selection(metadata: OnnxMetadata) -> Selection:
    nms = metadata.nms
    if nms is not None:
        return Selection(confidence=nms.confidence, iou=nms.iou, most=nms.max_detections)
    return metadata.selection or Selection()


def _dataset(deployed: Deployed, data: Path) -> Dataset:
    if not deployed.pictures:
        raise UserError("the bundle held no pictures: write it with --data to have the engine judged")
    splits = read_splits(data).splits
    dataset = next((found for split, found in splits.items() if split == deployed.split), None)
    if dataset is None:
        raise FileError(data, deployed.split, "missing", "the bundle's pictures are of it", "name the bundle's data")
    return dataset


def _same(plan: PicturePlan, known: Mapping[str, list[Picture]], data: Path) -> Picture:
    """The picture here that the device has seen."""
    there = known.get(plan.name, [])
    for picture in there:
        try:
            if digest(read_bytes(picture.path)) == plan.sha256:
                return picture
        except BrokenPictureError:
            continue
    what = "is another one than the device has seen" if there else "is not in the split"
    raise FileError(data, "", f"the picture {plan.name} of the bundle {what}", todo="name the data of the bundle")
