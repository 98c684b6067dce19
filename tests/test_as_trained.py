"""`scaler evaluate` gives for the files of a run the numbers that the run itself found."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from training_runs import (  # noqa: E402
    CLASSES,
    MemorySource,
    boxes_of,
    dataset,
    image_of,
    plan,
    recipe,
    with_toy_family,  # noqa: F401  (a fixture)
)

from scaler.cli import run  # noqa: E402
from scaler.data.data_file import read_splits  # noqa: E402
from scaler.data.images import write_image  # noqa: E402
from scaler.evaluation.detections import Selection  # noqa: E402
from scaler.training.loop.train import train  # noqa: E402
from scaler.training.network.checkpoint import load_into, read_checkpoint  # noqa: E402
from scaler.training.network.loading import load_detector  # noqa: E402
from scaler.training.network.module import to_torch, weights_of  # noqa: E402
from scaler.training.network.onnx_file import write_onnx  # noqa: E402
from scaler.training.recipe import Stage  # noqa: E402

SELECTION = Selection(confidence=0.05, iou=0.3, most=3)
"""Far from what `scaler evaluate` takes where nobody tells."""


def on_disk(folder: Path, count: int) -> Path:
    """Pictures of the toy data set as a validation split; returns the data.toml."""
    annotations = []
    for number in range(count):
        write_image(folder / f"{number}.png", image_of(number))
        boxes = boxes_of(number)
        for (x1, y1, x2, y2), label in zip(boxes.corners.tolist(), boxes.labels.tolist(), strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            )  # fmt: skip
    height, width = image_of(0).shape[:2]
    labels = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": width, "height": height} for n in range(count)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(CLASSES, 1)],
        "annotations": annotations,
    }
    (folder / "val.json").write_text(json.dumps(labels))
    path = folder / "data.toml"
    path.write_text('schema_version = 1\nname = "toys"\nformat = "coco"\n[val]\npictures = "."\nlabels = "val.json"\n')
    return path


def untimed(text: str) -> dict[str, object]:
    """Metrics but for what no two evaluations have in common."""
    return {key: value for key, value in json.loads(text).items() if key not in ("seconds", "pictures_per_second")}


def test_both_files_of_a_run_evaluate_to_its_own_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = on_disk(tmp_path, 12)
    own = recipe(
        Stage(epochs=24, lr=1e-2, final=0.05), ema=0.98,
        confidence=SELECTION.confidence, nms_iou=SELECTION.iou, max_detections=SELECTION.most,
    )  # fmt: skip
    own = replace(own, evaluate_every=12)
    val = read_splits(data, ["val"]).splits["val"]
    network = plan(tmp_path / "run", own, pictures=8, val=val)
    network = replace(network, spec=replace(network.spec, parameters={"channels": 24}), train=dataset(8))
    outcome = train(network, source=MemorySource(8, own.batch))
    assert outcome.metrics is not None and 0 < (outcome.metrics.ap50 or 0) < 1
    module = to_torch(network.spec.graph())
    load_into(module, read_checkpoint(network.best), network.best)
    write_onnx(network.spec, weights_of(module), tmp_path / "best.onnx", selection=SELECTION)
    assert load_detector(network.best, "cpu").selection == SELECTION

    def told(file: Path, *options: str) -> dict[str, object]:
        assert run(["evaluate", str(file), "--data", str(data), "--json", *options]) == 0
        return untimed(capsys.readouterr().out)

    expected = untimed(json.dumps(outcome.metrics.as_data()))
    assert told(network.best) == expected
    assert told(tmp_path / "best.onnx")["ap"] == pytest.approx(expected["ap"], abs=1e-3)
    assert told(network.best, "--confidence", "0.001", "--iou", "0.65", "--max-detections", "300") != expected
