"""`scaler run`: frames in, a video and a table out, by fakes and by a real network; and mistakes, told in one line."""

import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_camera import FakeCapture, FakeGui, bgr, video
from fake_detector import FakeDetector, picture_of

from scaler.cli import run
from scaler.data.images import write_image
from scaler.data.preprocessing import Preprocessing
from scaler.evaluation.video import VideoReader
from scaler.export.weights import random_weights
from scaler.training.network import loading
from scaler.training.network.onnx_file import write_onnx
from scaler.training.network.spec import NetworkSpec


class Detector(FakeDetector):
    """Finds one cat; sends this process a signal at a frame."""

    signal_at: int | None = None
    signal_number = signal.SIGINT

    def raw(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = super().raw(images)
        if len(self.batches) - 3 == self.signal_at:  # three of the warm-up
            signal.raise_signal(self.signal_number)
        return found


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Detector:
    """What every model is; the camera 0 is there and has ten frames, no other one is."""
    found = Detector(("cat", "dog"), {1: ((120, 90), [(20, 30, 60, 70, 0, 0.8)]), 2: ((120, 90), [])})
    monkeypatch.setattr(loading, "load_detector", lambda *_, **__: found)
    monkeypatch.setattr(cv2, "VideoCapture", _opening(cv2.VideoCapture))
    return found


def _opening(real: Any) -> Any:
    def opened(name: int | str, *rest: Any) -> Any:
        return FakeCapture([bgr()] * 10, opened=name == 0) if isinstance(name, int) else real(name, *rest)

    return opened


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return video(tmp_path / "street.mp4", frames=6)


def length(path: Path | str) -> tuple[int, float]:
    """Frames and rate of a video."""
    with VideoReader(Path(path)) as reader:
        return sum(1 for _ in reader), reader.fps


def arguments(source: str, *more: str) -> list[str]:
    return ["run", "--model", "best.onnx", "--source", source, *more]


HEADLESS = ("--headless", "--out", "out/demo.mp4")


def test_a_video_becomes_a_drawn_one_and_a_table(street, detector, capsys: pytest.CaptureFixture[str]):
    assert run(arguments("street.mp4", *HEADLESS)) == 0
    assert length("out/demo.mp4") == (6, 10.0)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == ["part", "of", "a", "frame", "median", "ms", "p99", "ms"]
    titles = ["waiting", "decode", "letterbox", "network", "NMS", "drawing", "whole frame", "showing and writing"]
    rows = [line for line in lines[1:-1] if line.strip()]
    assert [row.rstrip("0123456789. ") for row in rows] == titles
    assert lines[-1].startswith("street.mp4: 6 frames in ")
    assert lines[-1].endswith("without waiting, showing and writing -> out/demo.mp4")
    assert "scaler: street.mp4; Ctrl-C ends" in said.err
    assert [path.name for path in Path("out").iterdir()] == ["demo.mp4"]


def test_json_holds_the_same_figures(street, detector, capsys: pytest.CaptureFixture[str]):
    assert run(arguments("street.mp4", *HEADLESS, "--json", "--frames", "4")) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["source"], data["frames"], data["ended"], data["out"]) == ("street.mp4", 4, "frames", "out/demo.mp4")
    assert data["fps"] == pytest.approx(4 / data["seconds"])
    parts = data["milliseconds"]
    assert parts["network"]["median"] <= parts["network"]["p99"]
    assert parts["frame"]["median"] > parts["network"]["median"] > 0
    assert length("out/demo.mp4")[0] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_whole_video(number, street, detector, capsys: pytest.CaptureFixture[str]):
    detector.signal_at, detector.signal_number = 3, number
    before = signal.getsignal(number)
    assert run(arguments("street.mp4", *HEADLESS)) == 0
    assert length("out/demo.mp4") == (3, 10.0)
    assert "3 frames in " in capsys.readouterr().out
    assert signal.getsignal(number) == before


def test_the_time_limit_ends_it(street, detector, capsys: pytest.CaptureFixture[str]):
    assert run(arguments("street.mp4", *HEADLESS, "--seconds", "0.001", "--json")) == 0
    data = json.loads(capsys.readouterr().out)
    assert 1 <= data["frames"] <= 6
    assert length("out/demo.mp4")[0] == data["frames"]


def test_a_camera_is_recorded_in_the_time_of_the_world(street, detector, capsys: pytest.CaptureFixture[str]):
    assert run(arguments("0", *HEADLESS)) == 0
    frames, rate = length("out/demo.mp4")
    assert rate == 10
    assert frames >= 1  # the fake camera is far faster than it says, so most frames are left out
    said = capsys.readouterr()
    assert "camera 0: 10 frames in " in said.out
    assert "scaler: camera 0 gives no more frames" in said.err


def test_a_window_and_a_file_together(street, detector, monkeypatch: pytest.MonkeyPatch, capsys):
    gui = FakeGui(monkeypatch, [], [], quits_at=2)
    assert run(arguments("street.mp4", "--out", "demo.mp4")) == 0
    assert len(gui.shown) == 2
    assert gui.closed
    assert length("demo.mp4")[0] == 2
    assert "q in the window or Ctrl-C ends" in capsys.readouterr().err


def test_a_window_alone_writes_nothing(street, detector, monkeypatch: pytest.MonkeyPatch):
    gui = FakeGui(monkeypatch, [], [])
    before = sorted(Path().iterdir())
    assert run(arguments("street.mp4")) == 0
    assert (len(gui.shown), sorted(Path().iterdir())) == (6, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_time_of_a_picture(number, street, detector, monkeypatch: pytest.MonkeyPatch):
    photos(2)
    gui = FakeGui(monkeypatch, [], [])

    def pressed(_: int) -> int:
        gui.waits.append(0)
        if len(gui.waits) == 2:  # one of showing, one of the pause
            signal.raise_signal(number)
        return -1

    monkeypatch.setattr(cv2, "waitKey", pressed)
    assert run(arguments("photos", "--out", "demo.mp4", "--picture-seconds", "3600")) == 0
    assert (len(gui.shown), len(gui.waits)) == (1, 2)


def test_an_older_video_of_that_name_is_shown_where_none_is_written(street, detector, monkeypatch: pytest.MonkeyPatch):
    photos(1)
    video(Path("photos/demo.mp4"), frames=3)
    monkeypatch.chdir("photos")
    gui = FakeGui(monkeypatch, [], [])
    assert run(arguments(".")) == 0
    assert len(gui.shown) == 4


def photos(number: int) -> None:
    Path("photos").mkdir()
    for name in range(number):
        write_image(f"photos/{name}.png", picture_of(1, 120, 90))


def test_a_folder_of_pictures_with_a_broken_one(street, detector, capsys: pytest.CaptureFixture[str]):
    Path("photos").mkdir()
    for name, width in (("a.png", 120), ("c.png", 91)):
        write_image(f"photos/{name}", picture_of(1, width, 90))
    Path("photos/b.png").write_bytes(b"")
    assert run(arguments("photos", *HEADLESS, "--picture-seconds", "0.25")) == 1
    said = capsys.readouterr()
    assert "skipped photos/b.png: an empty file" in said.err
    assert "photos: 2 frames in " in said.out
    assert length("out/demo.mp4") == (2, 4.0)


@pytest.mark.parametrize(
    ("given", "code", "expected"),
    [
        (["run", "--source", "0"], 2, "which network? give for instance --model"),
        (["run", "--model", "best.onnx"], 2, "what is it to look at? give for instance --source 0"),
        (arguments("street.mp4", "--headless"), 2, "give for instance --out demo.mp4"),
        (arguments("street.mp4", "--headless", "--out", "demo.avi"), 2, "videos are written as .mp4 files"),
        (arguments("street.mp4", "--headless", "--out", "street.mp4"), 2, "would be overwritten"),
        (arguments("street.mp4", "--headless", "--out", "."), 2, "videos are written as .mp4 files"),
        (arguments("street.mp4", "--headless", "--out", "folder.mp4"), 2, "is a folder; name a file in it"),
        (arguments("street.mp4", "--headless", "--out", "street.mp4/a.mp4"), 1, "cannot make the folder street.mp4"),
        (arguments("gone.mp4", *HEADLESS), 1, "gone.mp4: no such file or folder"),
        (arguments("empty.mp4", *HEADLESS), 1, "empty.mp4: no frame can be read"),
        (arguments("a" * 300, *HEADLESS), 1, "file name too long; check the path"),
        (arguments("street.mp4", "--headless", "--out", f"{'a' * 300}.mp4"), 2, "file name too long; name another"),
        (arguments(f"{'a' * 300} ! appsink", *HEADLESS), 1, "this OpenCV"),
        (arguments("1000", *HEADLESS), 2, "--source 1000: cameras have numbers from 0 to 999"),
        (arguments("9" * 5000, *HEADLESS), 2, "cameras have numbers from 0 to 999"),
        (arguments("7", *HEADLESS), 1, "--source 7: cannot be opened; is it connected and free"),
        (arguments("street.mp4", *HEADLESS, "--frames", "0"), 2, "--frames"),
        (arguments("street.mp4", *HEADLESS, "--confidence", "2"), 2, "--confidence"),
    ],
)
def test_mistakes_are_one_line(
    given, code, expected, street, detector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: False)  # as all OpenCV from pip are
    Path("folder.mp4").mkdir()
    Path("empty.mp4").write_bytes(b"")
    before = street.read_bytes()
    assert run(given) == code
    said = [line for line in capsys.readouterr().err.splitlines() if "Ctrl-C ends" not in line]
    assert len(said) == 1
    assert expected in said[0]
    assert street.read_bytes() == before
    assert not Path("out/demo.mp4").exists()


def test_where_opencv_has_no_window_that_is_said_before_anything_is_loaded(
    street, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    assert run(arguments("street.mp4")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "this OpenCV has no windows" in line
    assert "--headless --out demo.mp4" in line


def test_a_real_network_by_onnx_runtime(street, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spec = NetworkSpec(
        family="yolo-ret",
        parameters={"backbone": "mobilenetv2", "width": 0.35, "resolution": 160, "drop": 2},
        classes=("circle", "square"),
        preprocessing=Preprocessing(size=160, fill=0),
    )
    write_onnx(spec, random_weights(1), tmp_path / "tiny.onnx")
    given = ["run", "--model", "tiny.onnx", "--source", "street.mp4", "--confidence", "0.01", "--device", "cpu"]
    assert run([*given, *HEADLESS, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["frames"] == 6
    assert length("out/demo.mp4") == (6, 10.0)
