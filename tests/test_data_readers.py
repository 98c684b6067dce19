"""COCO, VOC and YOLO labels give the same boxes; what cannot be used is one line with file and place."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_sets import (
    CLASSES,
    OBJECTS,
    SIZES,
    coco_labels,
    edit_coco,
    voc_labels,
    write_data_set,
    write_labels,
    write_pictures,
    write_toml,
    yolo_labels,
)

from scaler.data import coco, voc, yolo
from scaler.data.data_file import read_splits
from scaler.data.dataset import Dataset
from scaler.data.findings import Kind
from scaler.errors import FileError

LAYOUTS = ("coco", "voc", "yolo")


def train_of(path: Path) -> Dataset:
    return read_splits(path).splits["train"]


def places(dataset: Dataset, kind: Kind) -> tuple[str, ...]:
    return next((finding.places for finding in dataset.findings if finding.kind == kind), ())


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as caught:
        read_splits(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_gives_the_same_boxes(tmp_path: Path, layout: str):
    splits = read_splits(write_data_set(tmp_path, layout, ("train", "val")))
    assert (splits.name, splits.classes, list(splits.splits)) == ("pets", CLASSES, ["train", "val"])
    for split, dataset in splits.splits.items():
        assert (dataset.split, dataset.classes, dataset.objects, dataset.findings) == (split, CLASSES, 3, ())
        assert [picture.path for picture in dataset.pictures] == [tmp_path / split / name for name in SIZES]
        assert [(picture.width, picture.height) for picture in dataset.pictures] == list(SIZES.values())
        for picture, objects in zip(dataset.pictures, OBJECTS.values(), strict=True):
            assert picture.boxes.corners.dtype == np.float32
            np.testing.assert_allclose(picture.boxes.corners, [box for _, box in objects], atol=1e-4)
            assert [CLASSES[label] for label in picture.boxes.labels] == [name for name, _ in objects]
            assert not picture.boxes.ignored.any()


def test_no_picture_is_decoded_to_read_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scaler.data.images.decode", None)  # calling it would raise
    for layout in LAYOUTS:
        folder = tmp_path / layout
        folder.mkdir()
        assert train_of(write_data_set(folder, layout)).objects == 3


def test_cocos_classes_without_a_list_are_those_of_the_training_labels_by_id(tmp_path: Path):
    path = write_data_set(tmp_path, "coco", ("train", "val"))
    path.write_text(path.read_text().replace('classes = ["cat", "dog"]\n', ""))
    edit_coco(
        tmp_path / "val.json",
        categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        annotations=[{"image_id": 11, "category_id": 2, "bbox": [0, 0, 5, 5]}],
    )
    for only in (None, ["val"]):  # the same without reading the training split
        splits = read_splits(path, only)
        assert splits.classes == ("dog", "cat")  # ids 7 and 90
        assert splits.splits["val"].pictures[0].boxes.labels.tolist() == [1]
    (tmp_path / "train.json").unlink()
    with pytest.raises(FileError, match=r"train.labels: no file .*train.json, which names the classes; add classes"):
        read_splits(path, ["val"])


def test_crowds_and_difficult_objects_are_ignored_not_lost(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    edit_coco(
        tmp_path / "train.json",
        annotations=[{**row, "iscrowd": int(i == 1)} for i, row in enumerate(coco_labels()["annotations"])],
    )
    assert [p.boxes.ignored.tolist() for p in train_of(path).pictures] == [[False, True], [False]]
    assert train_of(path).objects == 2
    (tmp_path / "v").mkdir()
    path = write_data_set(tmp_path / "v", "voc")
    file = tmp_path / "v" / "train-xml" / "a.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    assert [p.boxes.ignored.tolist() for p in train_of(path).pictures] == [[True, False], [False]]


def test_boxes_are_clipped_or_dropped_with_a_word_and_rounding_goes_without(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    boxes = [
        [-0.4, 0, 10, 30.9],
        [-5, -5, 15, 15],
        [38, 10, 9, 5],
        [50, 0, 5, 5],
        [3, 3, 0, 5],
        [3, 3, 5, -1],
        [0, 0, 1e400, 2],
    ]
    rows = [{"image_id": 11, "category_id": 90, "bbox": box} for box in boxes]
    edit_coco(tmp_path / "train.json", annotations=rows)
    dataset = train_of(path)
    np.testing.assert_allclose(
        dataset.pictures[0].boxes.corners, [(0, 0, 9.6, 30), (0, 0, 10, 10), (38, 10, 40, 15)], atol=1e-5
    )
    picture = tmp_path / "train" / "a.png"
    assert places(dataset, "clipped-box") == (f"{picture}: cat -5 -5 10 10", f"{picture}: cat 38 10 47 15")
    assert places(dataset, "outside-box") == (f"{picture}: cat 50 0 55 5",)
    assert places(dataset, "empty-box") == (
        f"{picture}: cat 3 3 3 8",
        f"{picture}: cat 3 3 8 2",
        f"{picture}: cat 0 0 inf 2",
    )


def test_missing_pictures_are_left_out_with_their_boxes(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    (tmp_path / "train" / "a.png").unlink()
    dataset = train_of(path)
    assert [(picture.name, len(picture.boxes)) for picture in dataset.pictures] == [("b", 1)]
    assert places(dataset, "missing-picture") == (str(tmp_path / "train" / "a.png"),)


def test_labels_and_pictures_that_lack_each_other(tmp_path: Path):
    for layout, left in (("voc", ["b"]), ("yolo", ["a", "b"])):
        folder = tmp_path / layout
        folder.mkdir()
        path = write_data_set(folder, layout)
        labels = next(folder.glob("train-*"))
        suffix = next(labels.iterdir()).suffix
        (labels / f"a{suffix}").rename(labels / f"c{suffix}")
        dataset = train_of(path)
        assert [picture.name for picture in dataset.pictures] == left  # YOLO's has no objects, VOC's is left out
        assert dataset.objects == 1
        assert places(dataset, "unlabelled-picture") == (str(folder / "train" / "a.png"),)
        assert places(dataset, "orphan-label") == (str(labels / f"c{suffix}"),)


def test_an_annotation_without_its_picture_is_left_out(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    rows = coco_labels()["annotations"]
    edit_coco(tmp_path / "train.json", annotations=[*rows, {**rows[0], "image_id": 99}])
    assert places(train_of(path), "orphan-label") == (
        f"{tmp_path / 'train.json'}: annotations[3].image_id: no image 99",
    )


def test_a_broken_picture_whose_size_only_it_knows_is_left_out(tmp_path: Path):
    path = write_data_set(tmp_path, "yolo")
    (tmp_path / "train" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    dataset = train_of(path)
    assert [(picture.name, len(picture.boxes)) for picture in dataset.pictures] == [("b", 1)]
    assert places(dataset, "corrupt-picture") == (f"{tmp_path / 'train' / 'a.png'}: no picture, or cut off",)


def test_sizes_that_the_labels_do_not_say_come_from_the_pictures(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    images = [{**image, "width": width} for image, width in zip(coco_labels()["images"], (None, 0), strict=True)]
    edit_coco(tmp_path / "train.json", images=images)
    assert [(picture.width, picture.height) for picture in train_of(path).pictures] == list(SIZES.values())


@pytest.mark.parametrize("line", ["b", "b.png", "train/b.png", "./somewhere/train/b.png", "b  -1", ".\\train\\b.png"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_list_chooses_pictures_as_voc_and_yolo_write_it(tmp_path: Path, layout: str, line: str):
    write_data_set(tmp_path, layout)
    (tmp_path / "names.txt").write_text(f"\n{line}\n")
    path = write_toml(tmp_path, layout, extra='list = "names.txt"')
    dataset = train_of(path)
    assert [picture.name for picture in dataset.pictures] == ["b"]
    assert dataset.findings == ()


def test_a_name_of_the_list_without_picture_is_told(tmp_path: Path):
    write_data_set(tmp_path, "voc")
    (tmp_path / "names.txt").write_text("a\nnone\n")
    dataset = train_of(write_toml(tmp_path, "voc", extra='list = "names.txt"'))
    assert [picture.name for picture in dataset.pictures] == ["a"]
    assert places(dataset, "missing-picture") == (f"none of {tmp_path / 'names.txt'}",)


def test_folders_below_are_searched_and_names_may_have_any_letters(tmp_path: Path):
    sizes = {"x/a b.png": (40, 30), "y/Ä\u202f日.png": (20, 50)}
    write_pictures(tmp_path / "train" / "x", {})
    write_pictures(tmp_path / "train" / "y", {})
    write_pictures(tmp_path / "train", sizes)
    for name, label in zip(sizes, SIZES, strict=True):
        file = (tmp_path / "train-txt" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True)
        file.write_text(yolo_labels(label))
    labels = coco_labels()
    for image, name in zip(labels["images"], sizes, strict=True):
        image["file_name"] = name
    (tmp_path / "train.json").write_text(json.dumps(labels))
    for layout in ("yolo", "coco"):
        dataset = train_of(write_toml(tmp_path, layout))
        assert [picture.path for picture in dataset.pictures] == [tmp_path / "train" / name for name in sizes]
        assert (dataset.objects, dataset.findings) == (3, ())


def test_labels_beside_the_pictures_and_an_empty_file_are_yolo_too(tmp_path: Path):
    write_pictures(tmp_path / "train")
    (tmp_path / "train" / "a.txt").write_text("\ufeff" + yolo_labels("a.png"))
    (tmp_path / "train" / "b.txt").write_text("")
    (tmp_path / "train" / "classes.txt").write_text("cat\ndog\n")
    path = write_toml(tmp_path, "yolo")
    path.write_text(path.read_text().replace("train-txt", "train"))
    dataset = train_of(path)
    assert [len(picture.boxes) for picture in dataset.pictures] == [2, 0]
    assert dataset.findings == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_without_objects_is_refused_and_says_why(tmp_path: Path, layout: str):
    path = write_data_set(tmp_path, layout)
    for picture in (tmp_path / "train").iterdir():
        picture.unlink()
    message = refusal(path)
    assert message.startswith(f"{path}: train: no picture with labels in {tmp_path / 'train'}")
    assert {"coco": "2 pictures missing", "voc": "2 labels without", "yolo": "2 labels without"}[layout] in message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_folders_and_files_are_one_line(tmp_path: Path, layout: str):
    path = write_toml(tmp_path, layout)
    assert refusal(path).startswith(f"{path}: train.pictures: no folder {tmp_path / 'train'}; correct it")
    write_pictures(tmp_path / "train")
    assert ("train.labels: no folder" if layout != "coco" else "train.json: no such file") in refusal(path)


COCO_MISTAKES = {
    "cut": (lambda d: json.dumps(d)[:200], "train.json: line 1, column "),
    "list": ("[]", "train.json: the top level is no object"),
    "binary": ("\udcff", "train.json: cannot be read: 'utf-8' codec"),
    "deep": ("[" * 200_000, "train.json: nested too deep"),
    "no images": (lambda d: {**d, "images": {}}, "train.json: images: no list"),
    "no categories": ({"images": []}, "train.json: categories: missing"),
    "empty categories": (lambda d: {**d, "categories": []}, "annotations[0].category_id: no category 90"),
    "row": (lambda d: {**d, "annotations": [3]}, "train.json: annotations[0]: no object"),
    "key": (lambda d: {**d, "annotations": [{"image_id": 11}]}, "annotations[0].category_id: missing"),
    "name": (lambda d: {**d, "images": [{"id": 1, "file_name": 3}]}, "images[0].file_name: found 3"),
    "id": (lambda d: {**d, "images": [{"id": [], "file_name": "a"}]}, "images[0].id: found a list of 0"),
    "twice": (lambda d: {**d, "images": [d["images"][0]] * 2}, "images[0].id: 11 stands twice"),
    "category": (lambda d: edited(d, category_id=3), "annotations[1].category_id: no category 3; the file has 90, 7"),
    "box": (
        lambda d: edited(d, bbox=[1, 2, 3]),
        "annotations[1].bbox: found a list of 3; expected [x, y, width, height]",
    ),
    "word": (lambda d: edited(d, bbox=[1, 2, 3, "x"]), 'annotations[1].bbox: found [1, 2, 3, "x"]'),
    "large": (lambda d: edited(d, bbox=[1, 2, 3, 10**400]), "annotations[1].bbox: found [1, 2, 3, 1000"),
}


def edited(data: dict, **changes: object) -> dict:
    rows = [dict(row) for row in data["annotations"]]
    rows[1].update(changes)
    return {**data, "annotations": rows}


@pytest.mark.parametrize("mistake", COCO_MISTAKES)
def test_a_mistake_in_coco_labels_is_one_line_with_its_place(tmp_path: Path, mistake: str):
    path = write_data_set(tmp_path, "coco")
    change, expected = COCO_MISTAKES[mistake]
    content = change(coco_labels()) if callable(change) else change
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "train.json").write_bytes(text.encode(errors="surrogateescape"))
    assert expected in refusal(path)


def test_a_class_count_that_does_not_match_names_class_and_file(tmp_path: Path):
    path = write_data_set(tmp_path, "coco")
    edit_coco(tmp_path / "train.json", categories=[{"id": 90, "name": "cat"}, {"id": 7, "name": "dogs"}])
    message = refusal(path)
    assert "train.json: categories[1].name: 2 boxes of unknown class 'dogs'; did you mean 'dog'?" in message
    assert message.endswith(f"correct classes in {path}, which has 2")
    edit_coco(tmp_path / "train.json", categories=[*coco_labels()["categories"], {"id": 8, "name": "whole-set"}])
    assert train_of(path).objects == 3  # a category without boxes is no class


VOC_MISTAKES = {
    "cut": (lambda t: t[:90], "a.xml: line 1, column 86: unclosed token"),
    "tags": (lambda t: t.replace("</name>", "</nam>"), "a.xml: line 1, column 81: mismatched tag"),
    "empty": ("", "a.xml: line 1, column 1: no element found"),
    "root": ("<html></html>", "a.xml: the root is <html>"),
    "encoding": (lambda t: "<?xml version='1.0' encoding='no'?>" + t, "a.xml: "),
    "class": (lambda t: t.replace("dog", "dg"), "a.xml: object[1].name: unknown class 'dg'; did you mean 'dog'?"),
    "no class": (lambda t: t.replace("<name>cat</name>", ""), "a.xml: object[0].name: missing"),
    "no box": (lambda t: t.replace("bndbox", "box"), "a.xml: object[0].bndbox: missing; expected xmin, ymin"),
    "no side": (lambda t: t.replace("ymax", "ymx"), "a.xml: object[0].bndbox.ymax: missing; expected pixels"),
    "word": (lambda t: t.replace("<ymax>22", "<ymax>x22"), "a.xml: object[0].bndbox.ymax: found 'x22'"),
    "nan": (lambda t: t.replace("<ymax>22", "<ymax>nan"), "a.xml: object[0].bndbox.ymax: found 'nan'"),
}


@pytest.mark.parametrize("mistake", VOC_MISTAKES)
def test_a_mistake_in_voc_labels_is_one_line_with_its_place(tmp_path: Path, mistake: str):
    path = write_data_set(tmp_path, "voc")
    change, expected = VOC_MISTAKES[mistake]
    (tmp_path / "train-xml" / "a.xml").write_text(change(voc_labels("a.png")) if callable(change) else change)
    assert expected in refusal(path)


YOLO_MISTAKES = {
    "0 0.5 0.5 0.1": "a.txt: line 2: 4 words; expected a line an object: class, centre x, centre y, width, height",
    "0 0 0 1 0 1 1": "a.txt: line 2: 7 words; outlines are not read",
    "0 0.5 0.5 x 0.1": "a.txt: line 2: found '0 0.5 0.5 x 0.1'; expected five finite numbers",
    "0 0.5 0.5 nan 0.1": "a.txt: line 2: found '0 0.5 0.5 nan 0.1'",
    "2 0.5 0.5 0.1 0.1": "a.txt: line 2: unknown class 2; data.toml has 2: 0 to 1",
    "-1 0.5 0.5 0.1 0.1": "a.txt: line 2: unknown class -1",
    "0.5 0.5 0.5 0.1 0.1": "a.txt: line 2: unknown class 0.5",
    "0 320 240 50 60": "a.txt: line 2: pixels; expected shares of the picture, 0 to 1",
    "\udcff": "a.txt: cannot be read: 'utf-8' codec",
}


@pytest.mark.parametrize("line", YOLO_MISTAKES)
def test_a_mistake_in_yolo_labels_is_one_line_with_its_place(tmp_path: Path, line: str):
    path = write_data_set(tmp_path, "yolo")
    (tmp_path / "train-txt" / "a.txt").write_bytes(f"1 0.5 0.5 0.1 0.1\n{line}\n".encode(errors="surrogateescape"))
    assert YOLO_MISTAKES[line] in refusal(path)


TOML_MISTAKES = {
    'format = "coco"': ('format = "coc"', "format: found 'coc'; expected one of coco, voc, yolo; did you mean 'coco'?"),
    'classes = ["cat", "dog"]': ('classes = ["cat", "cat"]', "classes[1]: 'cat' stands twice"),
    "schema_version = 1": ("schema_version = 2", "schema_version: found 2; this scaler reads 1; update scaler"),
    'pictures = "train"': ("", "train.pictures: missing; expected a text"),
    "[train]": ("[training]", "data.toml: no split; expected a table [train] or [val]|training: unknown key"),
    'labels = "train.json"': (
        'label = "x"\nlabels = "train.json"',
        "train.label: unknown key; .*did you mean 'labels'",
    ),
}


@pytest.mark.parametrize("right", TOML_MISTAKES)
def test_a_mistake_in_data_toml_is_one_line_with_its_place(tmp_path: Path, right: str):
    path = write_data_set(tmp_path, "coco")
    wrong, expected = TOML_MISTAKES[right]
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(FileError, match=expected.replace("[train]", r"\[train\]").replace("s[1]", r"s\[1\]")):
        read_splits(path)


def test_voc_and_yolo_must_name_their_classes(tmp_path: Path):
    for layout in ("voc", "yolo"):
        path = write_toml(tmp_path, layout)
        path.write_text(path.read_text().replace('classes = ["cat", "dog"]\n', ""))
        assert "classes: missing; expected a list of at least 1" in refusal(path)


def test_only_the_splits_that_are_asked_for_must_exist(tmp_path: Path):
    write_data_set(tmp_path, "voc", ("val",))
    path = write_toml(tmp_path, "voc", ("train", "val"))
    assert list(read_splits(path, ["val"]).splits) == ["val"]
    assert "train.pictures: no folder" in refusal(path)
    with pytest.raises(FileError, match=r"data.toml: test: missing; expected a table with pictures and labels; add it"):
        read_splits(path, ["test"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lenient_reader_lists_every_mistake_and_goes_on(tmp_path: Path, layout: str):
    path = write_data_set(tmp_path, layout, ("train", "val"))
    labels = write_labels(tmp_path, layout)
    if layout == "coco":
        edit_coco(labels, categories=[{"id": 90, "name": "x"}, {"id": 7, "name": "y"}])
    else:
        for file in labels.iterdir():
            file.write_text("broken")
    splits = read_splits(path, strict=False).splits
    assert len(places(splits["train"], "unusable")) == 2
    assert splits["val"].objects == 3
    (tmp_path / "val" / "a.png").rename(tmp_path / "a.png")
    (tmp_path / "val" / "b.png").unlink()
    (tmp_path / "val").rmdir()
    lost = read_splits(path, strict=False).splits["val"]
    assert (lost.pictures, len(places(lost, "unusable"))) == ((), 1)


def test_the_readers_are_named_in_one_table():
    from scaler.data.data_file import FORMATS

    assert dict(FORMATS) == {"coco": coco.read, "voc": voc.read, "yolo": yolo.read}
