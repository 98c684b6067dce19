"""Boxes drawn on pictures and videos by a detector of known detections: what is read, written, skipped and refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_detector import FakeDetector, picture_of

from scaler.cli import run
from scaler.data.drawing import class_colour
from scaler.data.images import read_image, write_image
from scaler.errors import UsageError, UserError
from scaler.evaluation.detections import Selection
from scaler.evaluation.predict import predict
from scaler.evaluation.sources import find_sources
from scaler.evaluation.video import BrokenVideoError, VideoReader, VideoWriter
from scaler.training.network import loading

CLASSES = ("cat", "dog")
BOX = [20, 30, 60, 70]


def detector() -> FakeDetector:
    """One cat in pictures of red 1, nothing in those of red 2."""
    return FakeDetector(CLASSES, {1: ((120, 90), [(*BOX, 0, 0.8), (70, 10, 110, 40, 1, 0.1)]), 2: ((120, 90), [])})


@pytest.fixture
def folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in folders, beside other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.png", "photos/deep/a.png", "photos/deep/b.jpg", "photos/.hidden/c.png", "other/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, picture_of(1, 120, 90))
    (tmp_path / "photos/notes.txt").write_text("no picture")
    return tmp_path


def video(path: Path, frames: int = 6, size=(120, 90)) -> Path:
    with VideoWriter(path, 10.0) as writer:
        for _ in range(frames):
            writer.write(picture_of(1, *size))
    return path


# ------------------------------------------------------------------------------------------------------------- sources


def found(names, out="drawn") -> list[tuple[str, str]]:
    return [(str(source.path), str(source.output)) for source in find_sources(names, Path(out))]


def test_a_folder_is_searched_with_those_in_it_and_keeps_its_structure(folder: Path):
    assert found(["photos"]) == [
        ("photos/a.png", "drawn/a.png"),
        ("photos/deep/a.png", "drawn/deep/a.png"),
        ("photos/deep/b.jpg", "drawn/deep/b.jpg"),
    ]


def test_files_patterns_and_folders_mix_and_every_file_comes_once(folder: Path):
    names = ["other/a.png", "photos/*.png", "photos/**/b.*", "photos/deep"]
    assert found(names) == [
        ("other/a.png", "drawn/a.png"),
        ("photos/a.png", "drawn/a-2.png"),
        ("photos/deep/b.jpg", "drawn/b.jpg"),
        ("photos/deep/a.png", "drawn/a-3.png"),
    ]


def test_results_within_the_folder_are_not_read_again(folder: Path):
    first = found(["photos"], "photos/drawn")
    Path("photos/drawn").mkdir()
    write_image("photos/drawn/a.png", picture_of(1, 9, 9))
    assert found(["photos"], "photos/drawn") == first


@pytest.mark.parametrize(
    ("names", "out"), [(["photos"], "photos"), (["other/a.png"], "./other"), (["photos", "other/a.png"], "other")]
)
def test_nothing_that_is_read_is_overwritten(names, out, folder: Path):
    with pytest.raises(UsageError, match="would be overwritten; name another folder"):
        find_sources(names, Path(out))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone.png", "no such file or folder"),
        ("photos/notes.txt", "neither a picture nor a video"),
        ("photos/*.txt", "no picture or video matches"),
        ("empty", "no picture or video in this folder"),
    ],
)
def test_names_that_lead_nowhere_are_told(name: str, expected: str, folder: Path):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=expected) as error:
        find_sources(["photos", name], Path("drawn"))
    assert str(error.value).startswith(f"{name}: ")


# ------------------------------------------------------------------------------------------------------------ pictures


def test_boxes_are_drawn_into_a_copy(folder: Path):
    before = Path("photos/a.png").read_bytes()
    predictions = predict(detector(), find_sources(["photos/a.png"], Path("new/drawn")), Selection(confidence=0.25))
    (one,) = predictions.done
    assert [len(detections) for detections in one.frames] == [1]
    np.testing.assert_allclose(one.frames[0].corners, [BOX], atol=1e-3)
    drawn, plain = read_image("new/drawn/a.png"), read_image("photos/a.png")
    assert tuple(drawn[69, 40]) == class_colour(0)  # the lower edge
    np.testing.assert_array_equal(drawn[31:69, 21:59], plain[31:69, 21:59])  # inside
    np.testing.assert_array_equal(drawn[:15], plain[:15])  # far away: not the dog, whose score is low
    assert Path("photos/a.png").read_bytes() == before
    assert predictions.frames == 1
    assert predictions.fps > 0


def test_broken_pictures_do_not_stop_the_others(folder: Path):
    Path("photos/deep/a.png").write_bytes(b"\x89PNG cut off")
    predictions = predict(detector(), find_sources(["photos"], Path("drawn")), Selection())
    assert [one.source.name for one in predictions.done] == ["a.png", "b.jpg"]
    assert [row.picture for row in predictions.broken] == ["photos/deep/a.png"]
    assert not Path("drawn/deep/a.png").exists()


# -------------------------------------------------------------------------------------------------------------- videos


def test_a_video_is_drawn_frame_by_frame(folder: Path):
    source = video(folder / "street.avi.mp4")
    predictions = predict(detector(), find_sources([source.name], Path("drawn")), Selection(confidence=0.25))
    (one,) = predictions.done
    assert (one.width, one.height, len(one.frames)) == (120, 90, 6)
    assert predictions.frames == 6
    assert sorted(path.name for path in Path("drawn").iterdir()) == [one.output.name]
    with VideoReader(one.output) as reader:
        frames = list(reader)
        assert (reader.fps, len(frames)) == (10.0, 6)
    for frame in frames:
        assert frame.shape == (90, 120, 3)
        edge, inside = frame[68:71, 40].astype(int), frame[50, 40].astype(int)
        assert np.abs(edge - class_colour(0)).sum(axis=1).min() < 200  # the codec blurs a line of one pixel
        assert np.abs(inside - [75, 90, 90]).max() < 25


def test_other_containers_become_mp4(folder: Path):
    writer = cv2.VideoWriter("old.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (120, 90))
    for _ in range(3):
        writer.write(picture_of(1, 120, 90))
    writer.release()
    ((_, output),) = found(["old.avi"])
    assert output == "drawn/old.mp4"
    (one,) = predict(detector(), find_sources(["old.avi"], Path("drawn")), Selection()).done
    assert len(one.frames) == 3


@pytest.mark.parametrize("content", [b"", b"no video at all", "cut"])
def test_an_unreadable_video_is_one_line_and_leaves_nothing(content, folder: Path, capfd: pytest.CaptureFixture[str]):
    path = folder / "broken.mp4"
    path.write_bytes(video(folder / "whole.mp4").read_bytes()[:400] if content == "cut" else content)
    predictions = predict(detector(), find_sources([str(path)], Path("drawn")), Selection())
    ((name, reason),) = predictions.broken
    assert name == str(path)
    assert "video" in reason or "frame" in reason
    assert list(Path("drawn").iterdir()) == []
    assert capfd.readouterr() == ("", "")  # OpenCV and FFmpeg keep quiet
    assert (predictions.frames, predictions.fps) == (0, 0)


def test_an_interrupted_video_leaves_the_old_result(folder: Path):
    path = video(folder / "result.mp4")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 10.0) as writer:
        writer.write(picture_of(1, 120, 90))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [left.name for left in folder.glob(".scaler*")] == []
    with pytest.raises(BrokenVideoError, match=r"gone\.mp4: no such file"):
        VideoReader(folder / "gone.mp4")


def test_a_video_that_cannot_be_written_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]):
    with (
        pytest.raises(UserError, match=r"cannot write .*gone.out\.mp4: OpenCV cannot open it"),
        VideoWriter(folder / "gone" / "out.mp4", 10.0) as writer,
    ):
        writer.write(picture_of(1, 120, 90))
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------------------------------------- `scaler predict`


@pytest.fixture
def faked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loading, "load_detector", lambda *_, **__: detector())
    return folder


def test_the_command_tells_what_it_found_and_its_frame_rate(faked: Path, capsys: pytest.CaptureFixture[str]):
    write_image("photos/a.png", picture_of(2, 120, 90))
    assert run(["predict", "best.pt", "photos/a.png", "other", "--out", "drawn"]) == 0
    said = capsys.readouterr().out
    assert "photos/a.png: nothing found -> drawn/a.png" in said
    assert "other/a.png: 1 cat -> drawn/a-2.png" in said
    assert "2 frames, " in said
    assert "frames/s one at a time" in said


def test_the_command_prints_json(faked: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["predict", "best.pt", "other", "--out", "drawn", "--json", "--confidence", "0.05"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["classes"] == ["cat", "dog"]
    (one,) = data["predictions"]
    assert (one["source"], one["output"], one["width"], one["height"]) == ("other/a.png", "drawn/a.png", 120, 90)
    ((cat, dog),) = one["frames"]
    assert (cat["class"], cat["score"], dog["class"], dog["score"]) == ("cat", 0.8, "dog", 0.1)
    assert cat["box"] == pytest.approx(BOX, abs=0.01)
    assert data["broken"] == []


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["photos"], 2, "give for instance --out drawn"),
        (["gone", "--out", "drawn"], 1, "gone: no such file or folder"),
        (["photos", "--out", "photos"], 2, "would be overwritten"),
        (["photos", "--out", "photos/notes.txt"], 1, "cannot make the folder photos/notes.txt"),
        (["photos", "--out", "drawn", "--confidence", "-1"], 2, "--confidence"),
    ],
)
def test_mistakes_are_one_line(options, code, expected, faked: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["predict", "best.pt", *options]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_what_cannot_be_read_is_told_and_fails_the_command(faked: Path, capsys: pytest.CaptureFixture[str]):
    Path("photos/deep/a.png").write_bytes(b"")
    assert run(["predict", "best.pt", "photos", "--out", "drawn"]) == 1
    said = capsys.readouterr()
    assert "skipped photos/deep/a.png: an empty file" in said.err
    assert "2 frames, " in said.out
