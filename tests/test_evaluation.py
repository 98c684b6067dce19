"""A detector of known detections on a data set: what is counted, mapped, skipped, refused, and printed."""

import json

import numpy as np
import pytest
from fake_detector import FakeDetector, picture_of

from scaler.cli import run
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.images import write_image
from scaler.errors import UnsupportedError, UserError
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Selection
from scaler.evaluation.evaluate import evaluate, label_map
from scaler.training.network import loading

CLASSES = ("cat", "dog")
THINGS = {
    1: ((100, 50), [([10, 10, 40, 40], 0), ([50, 5, 90, 45], 1)]),
    2: ((60, 120), [([5, 60, 50, 110], 1)]),
    3: ((80, 80), []),
}
"""Objects of three pictures: the size of each, then corners and label."""


def perfect(classes=CLASSES, order=(0, 1), selection: Selection | None = None) -> FakeDetector:
    """Finds everything, one box twice, and something in the picture without objects, with a low score."""
    found = {
        number: (size, [(*corners, order[label], 0.9 - 0.1 * index) for index, (corners, label) in enumerate(rows)])
        for number, (size, rows) in THINGS.items()
    }
    found[1][1].append((11, 10, 41, 40, order[0], 0.5))  # suppressed
    found[3][1].append((20, 20, 60, 60, order[1], 0.05))
    return FakeDetector(classes, found, selection)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    pictures = []
    for number, ((width, height), rows) in THINGS.items():
        path = tmp_path / f"{number}.png"
        write_image(path, picture_of(number, width, height))
        boxes = Boxes.of([corners for corners, _ in rows], [label for _, label in rows])
        pictures.append(Picture(path, boxes, width, height))
    return Dataset("animals", "val", CLASSES, tuple(pictures))


def test_a_detector_that_finds_everything_has_an_ap_of_one(dataset: Dataset):
    metrics = evaluate(perfect(), dataset, batch=2)
    assert metrics.ap == pytest.approx(1)  # boxes survive the way into the input and back
    assert (metrics.ap50, metrics.voc_ap50_area, metrics.voc_ap50_11) == pytest.approx((1, 1, 1))
    assert (metrics.pictures, metrics.objects, metrics.detections) == (3, 3, 4)
    assert [(row.name, row.objects) for row in metrics.by_class] == [("cat", 1), ("dog", 2)]
    assert metrics.seconds.total > 0
    assert metrics.pictures_per_second > 0
    assert (metrics.dataset, metrics.split) == ("animals", "val")


def test_the_selection_holds(dataset: Dataset):
    assert evaluate(perfect(), dataset, Selection(confidence=0.1)).detections == 3
    assert evaluate(perfect(), dataset, Selection(confidence=0.1, iou=0.99)).detections == 4
    only = evaluate(perfect(), dataset, Selection(most=1))
    assert only.detections == 3
    assert only.by_class[1].ap50 == pytest.approx(0.505, abs=1e-3)  # one of two: COCO's recalls 0 to 0.5


def test_without_a_selection_that_of_its_training_holds(dataset: Dataset):
    trained = Selection(confidence=0.1, iou=0.5, most=50)
    assert evaluate(perfect(selection=trained), dataset).selection == trained
    assert evaluate(perfect(selection=trained), dataset, Selection()).selection == Selection()
    assert evaluate(perfect(), dataset).selection == Selection()


def test_classes_in_another_order_are_mapped_by_name(dataset: Dataset):
    swapped = evaluate(perfect(("dog", "cat"), order=(1, 0)), dataset)
    straight = evaluate(perfect(), dataset)
    assert swapped.ap == straight.ap == pytest.approx(1)
    assert swapped.by_class == straight.by_class


def test_other_classes_are_refused_in_one_clear_line(dataset: Dataset):
    with pytest.raises(UnsupportedError) as error:
        evaluate(perfect(("cat", "cow")), dataset)
    expected = (
        "the network knows 2 classes (cat, cow), the data set has 2 (cat, dog); evaluate it on data with its classes"
    )
    assert str(error.value) == expected
    with pytest.raises(UnsupportedError, match=r"knows 1 class \(cat\), the data set has 2"):
        label_map(["cat"], ["cat", "dog"])
    with pytest.raises(UnsupportedError, match=r"a0, .*\(25 in all\)"):
        label_map([f"a{i}" for i in range(25)], ["b"])


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_workers_change_nothing_but_the_time(batch: int, workers: int, dataset: Dataset):
    detector, told = perfect(), []
    metrics = evaluate(detector, dataset, batch=batch, workers=workers, progress=lambda *words: told.append(words))
    assert metrics.by_class == evaluate(perfect(), dataset).by_class
    assert sum(detector.batches) == 3
    assert max(detector.batches) == min(batch, 3)
    assert told[-1] == (3, 3, "3")
    assert [done for done, _, _ in told] == sorted({*range(batch, 3, batch), 3})


def test_broken_pictures_are_skipped_with_their_objects_and_told(dataset: Dataset):
    first, second, _ = dataset.pictures
    first.path.write_bytes(first.path.read_bytes()[:30])
    metrics = evaluate(perfect(), dataset, batch=1)
    (skipped,) = metrics.skipped
    assert skipped.picture == str(first.path)
    assert skipped.reason
    assert "\n" not in skipped.reason
    assert (metrics.pictures, metrics.objects) == (2, 1)
    assert metrics.by_class[0].ap is None
    second.path.unlink()
    assert [row.picture for row in evaluate(perfect(), dataset).skipped] == [str(first.path), str(second.path)]


def test_a_data_set_without_readable_pictures_is_refused(dataset: Dataset):
    for picture in dataset.pictures:
        picture.path.unlink()
    with pytest.raises(UserError, match="none of the 3 pictures of the split 'val' can be read; the first"):
        evaluate(perfect(), dataset)
    with pytest.raises(UserError, match="animals: the split 'val' has no pictures"):
        evaluate(perfect(), Dataset("animals", "val", CLASSES, ()))


def test_detections_are_cut_at_the_pictures_edges_and_no_picture_is_fine():
    detector = FakeDetector(CLASSES, {1: ((90, 30), [(-20, -5, 45, 60, 1, 0.7)])})
    (found,) = detect(detector, [picture_of(1, 90, 30)], Selection())
    np.testing.assert_allclose(found.corners, [[0, 0, 45, 30]], atol=1e-4)
    assert found.labels.tolist() == [1]
    assert detect(detector, [], Selection()) == []


# --------------------------------------------------------------------------------------------------- `scaler evaluate`


@pytest.fixture
def data_toml(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    """The data set on the disk; whatever the model's file, the fake detector runs."""
    folder = dataset.pictures[0].path.parent
    annotations = [
        {"id": 10 * number + index, "image_id": number, "category_id": label + 5,
         "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        for number, (_, rows) in THINGS.items()
        for index, ((x1, y1, x2, y2), label) in enumerate(rows)
    ]  # fmt: skip
    labels = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
            for number, ((width, height), _) in THINGS.items()
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
        "annotations": annotations,
    }
    (folder / "val.json").write_text(json.dumps(labels))
    path = folder / "data.toml"
    path.write_text(
        'schema_version = 1\nname = "animals"\nformat = "coco"\n[val]\npictures = "."\nlabels = "val.json"\n'
    )
    monkeypatch.setattr(loading, "load_detector", lambda *_, **__: perfect())
    return path


def test_the_command_prints_classes_coco_and_voc(data_toml, capsys: pytest.CaptureFixture[str]):
    assert run(["evaluate", "best.pt", "--data", str(data_toml)]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}
    assert lines["cat"] == ["1", "100.0", "100.0", "100.0", "100.0"]
    assert lines["dog"] == ["2", "100.0", "100.0", "100.0", "100.0"]
    assert lines["all"] == ["3", "100.0", "100.0", "100.0", "100.0"]
    assert lines["AP"] == ["100.0", "100.0", "100.0", "100.0", "100.0", "–"]
    assert len(lines["AR"]) == 6
    assert "animals val: 3 pictures, 4 detections" in said
    assert "pictures/s" in said


def test_the_command_writes_and_prints_json(data_toml, capsys: pytest.CaptureFixture[str]):
    out = data_toml.with_name("metrics.json")
    assert run(["evaluate", "best.pt", "--data", str(data_toml), "--json", "--out", str(out), "--iou", "0.5"]) == 0
    printed, written = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert printed == written
    assert printed["ap"] == pytest.approx(1)
    assert (printed["iou"], printed["confidence"], printed["max_detections"]) == (0.5, 0.001, 300)
    assert [row["name"] for row in printed["classes"]] == ["cat", "dog"]
    assert len(printed["classes"][0]["precision"]) == 101


def test_the_command_takes_what_is_not_given_from_the_training(
    data_toml, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained = Selection(confidence=0.1, iou=0.7, most=50)
    monkeypatch.setattr(loading, "load_detector", lambda *_, **__: perfect(selection=trained))
    assert run(["evaluate", "best.pt", "--data", str(data_toml), "--json", "--iou", "0.5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["iou"], printed["confidence"], printed["max_detections"]) == (0.5, 0.1, 50)


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ([], 2, "give for instance --data data.toml"),
        (["--data", "gone.toml"], 1, "gone.toml: no such file"),
        (["--data", "DATA", "--split", "vall"], 2, "unknown split 'vall'; did you mean 'val'?"),
        (["--data", "DATA", "--split", "test"], 1, "test"),
        (["--data", "DATA", "--iou", "2"], 2, "--iou"),
        (["--data", "DATA", "--batch", "0"], 2, "--batch"),
        (["--data", "DATA", "--out", "gone/metrics.json"], 1, "cannot write gone/metrics.json"),
    ],
)
def test_mistakes_are_one_line(options, code, expected, data_toml, capsys: pytest.CaptureFixture[str]):
    assert run(["evaluate", "best.pt", *(str(data_toml) if word == "DATA" else word for word in options)]) == code
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("evaluating")]
    assert len(error) == 1
    assert expected in error[0]


def test_skipped_pictures_are_named_on_standard_error(data_toml, capsys: pytest.CaptureFixture[str]):
    (data_toml.parent / "2.png").write_bytes(b"")
    assert run(["evaluate", "best.pt", "--data", str(data_toml)]) == 0
    said = capsys.readouterr()
    assert "2.png: an empty file" in said.err
    assert "animals val: 2 pictures" in said.out


def test_what_the_labels_leave_out_is_told(data_toml, capsys: pytest.CaptureFixture[str]):
    (data_toml.parent / "3.png").unlink()
    assert run(["evaluate", "best.pt", "--data", str(data_toml)]) == 0
    assert "val: 1 pictures missing: left out; see `scaler data check`" in capsys.readouterr().err
