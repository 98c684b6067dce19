"""`scaler predict`: what a trained network finds in pictures and videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.evaluate import Device, Half, Model, in_tenths, tell_broken
from scaler.cli.options import Json, console, print_json
from scaler.errors import UsageError

if TYPE_CHECKING:
    from scaler.evaluation.predict import Prediction, Predictions


def command(
    model: Model,
    sources: Annotated[list[str], typer.Argument(help="Pictures, videos, folders of them, or quoted patterns.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the drawn pictures and videos.")] = None,
    confidence: Annotated[float, typer.Option("--confidence", min=0, max=1, help="Least score of a detection.")] = 0.25,
    iou: Annotated[
        float, typer.Option("--iou", min=0, max=1, help="Overlap above which the worse of two boxes is dropped.")
    ] = 0.5,
    max_detections: Annotated[int, typer.Option("--max-detections", min=1, help="Most of a picture.")] = 100,
    device: Device = "auto",
    half: Half = False,
    json_output: Json = False,
) -> None:
    """Draw what a trained network finds, and tell its frame rate here, one picture at a time.

    Pictures keep their format, videos become MP4 files. What is read is never overwritten.

    Example: scaler predict runs/best/best.pt photos/ street.mp4 --out drawn
    """
    if out is None:
        raise UsageError("where do the results go? give for instance --out drawn")
    from scaler.evaluation.detections import Selection  # noqa: PLC0415
    from scaler.evaluation.predict import predict  # noqa: PLC0415  (the help needs no numpy)
    from scaler.evaluation.sources import find_sources  # noqa: PLC0415
    from scaler.training.network.loading import load_detector  # noqa: PLC0415

    found = find_sources(sources, out)
    detector = load_detector(model, device, half=half)
    selection = Selection(confidence=confidence, iou=iou, most=max_detections)
    with in_tenths("predicting") as progress:
        predictions = predict(detector, found, selection, progress=progress)
    tell_broken(predictions.broken, len(found))
    if json_output:
        print_json(
            {
                "classes": list(detector.classes),
                "predictions": [one.as_data(detector.classes) for one in predictions.done],
                "broken": [row._asdict() for row in predictions.broken],
                "fps": predictions.fps,
            }
        )
    else:
        _print(predictions, detector.classes)
    if predictions.broken:
        raise typer.Exit(1)


def _print(predictions: Predictions, classes: tuple[str, ...]) -> None:
    screen = console()
    for one in predictions.done:
        screen.print(f"{one.source}: {_counts(one, classes)} -> {one.output}", markup=False, soft_wrap=True)
    if predictions.frames:
        whole = predictions.frames / predictions.seconds
        screen.print(
            f"{predictions.frames} frames, {predictions.fps:.1f} frames/s one at a time, from the picture in memory to "
            f"its boxes; {whole:.1f} with reading, drawing and writing",
            soft_wrap=True,
        )


def _counts(one: Prediction, classes: tuple[str, ...]) -> str:
    """`2 circle, 1 square`; of a video over all its frames."""
    labels = [label for detections in one.frames for label in detections.labels.tolist()]
    counts = ", ".join(f"{labels.count(place)} {classes[place]}" for place in sorted(set(labels))) or "nothing found"
    return counts if len(one.frames) == 1 else f"{counts} in {len(one.frames)} frames"
