"""Frames from cameras and files, live: what is read, timed, shown in a window, recorded, and how a run ends."""

import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_camera import FakeCapture, FakeGui, FakeWriter, bgr, video
from fake_detector import FakeDetector, picture_of
from hypothesis import given
from hypothesis import strategies as st

from scaler.data.images import write_image
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.evaluation import live
from scaler.evaluation.detections import Selection
from scaler.evaluation.live import FrameTimes, LiveRun, overlay, run_live
from scaler.evaluation.live_frames import CameraFrames, FileFrames, Frame, is_camera, open_source
from scaler.evaluation.live_output import Recorder, Window, check_window, on_canvas, write_overlay
from scaler.evaluation.predict import drawn
from scaler.evaluation.sources import find_files
from scaler.evaluation.video import VideoReader, VideoWriter

BOX = (20, 30, 60, 70)
SEEN = Selection(confidence=0.25)


def detector() -> FakeDetector:
    """One cat in pictures of red 1, nothing in those of red 2 and in the grey ones of the warm-up."""
    return FakeDetector(("cat", "dog"), {1: ((120, 90), [(*BOX, 0, 0.8)]), 2: ((120, 90), [])})


def files(name: str, out: str = "out.mp4", picture_seconds: float = 0.5) -> FileFrames:
    return FileFrames(name, [path for path, _ in find_files([name], Path(out)).values()], picture_seconds)


# ------------------------------------------------------------------------------------------------------------- cameras


def test_a_camera_gives_rgb_and_is_released():
    capture = FakeCapture([bgr(1), bgr(2)])
    with CameraFrames(capture, "camera 0") as camera:
        frames = list(camera)
    assert [frame.image.shape for frame in frames] == [(90, 120, 3)] * 2
    np.testing.assert_array_equal(frames[1].image, picture_of(2, 120, 90))
    assert all(frame.shown is None and frame.waited >= 0 and frame.decoded > 0 for frame in frames)
    assert (camera.fps, camera.frames, camera.broken) == (10.0, 0, ())
    assert capture.settings == {cv2.CAP_PROP_BUFFERSIZE: 1}
    assert capture.released


@pytest.mark.parametrize("rate", [0.0, -1.0, 90000.0])
def test_a_camera_that_does_not_tell_its_rate_counts_as_30(rate: float):
    assert CameraFrames(FakeCapture([], rate), "camera 0").fps == 30


def test_damaged_frames_are_left_out_until_there_are_too_many():
    capture = FakeCapture([None, bgr(), *[None] * 10, bgr(), *[None] * 11, bgr()])
    assert len(list(CameraFrames(capture, "camera 0"))) == 2
    assert len(capture.pictures) == 1


def test_grey_and_four_channels_become_rgb():
    grey, four = np.full((90, 120), 7, np.uint8), np.dstack([bgr(), np.full((90, 120), 255, np.uint8)])
    first, second = CameraFrames(FakeCapture([grey, four]), "pipeline")
    np.testing.assert_array_equal(first.image, np.full((90, 120, 3), 7))
    np.testing.assert_array_equal(second.image, picture_of(1, 120, 90))


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([], "camera 0: opened, but gives no frame"),
        ([None] * 3, "camera 0: opened, but gives no frame"),
        ([np.zeros((9, 9, 2), np.uint8)], "camera 0: frames of 2 channels; end the pipeline with"),
    ],
)
def test_cameras_that_give_nothing_usable_are_one_line(pictures, expected: str):
    with pytest.raises(UserError, match=expected):
        list(CameraFrames(FakeCapture(pictures), "camera 0"))


PIPELINE = "videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink"
LONG_PIPELINE = PIPELINE.replace(" ! ", " ! queue ! " * 30)
"""Longer than the name of a file may be."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """How OpenCV was asked to open cameras; each time it does. This OpenCV has GStreamer."""
    calls: list[tuple[Any, ...]] = []

    def open_(*arguments: Any) -> FakeCapture:
        calls.append(arguments)
        return FakeCapture([bgr()])

    monkeypatch.setattr(cv2, "VideoCapture", open_)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: True)
    return calls


@pytest.mark.parametrize(
    ("text", "arguments", "name"),
    [
        ("0", (0,), "camera 0"),
        ("/dev/video2", ("/dev/video2",), "/dev/video2"),
        ("rtsp://camera/1", ("rtsp://camera/1",), "rtsp://camera/1"),
        (PIPELINE, (PIPELINE, cv2.CAP_GSTREAMER), PIPELINE),
        (LONG_PIPELINE, (LONG_PIPELINE, cv2.CAP_GSTREAMER), LONG_PIPELINE),
        ("0999", (999,), "camera 0999"),
    ],
)
def test_cameras_pipelines_and_streams_are_opened_by_their_kind(text, arguments, name, opened):
    assert is_camera(text)
    with open_source(text, Path("out.mp4"), 0.5) as source:
        assert len(list(source)) == 1
    assert opened == [arguments]
    assert source.name == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", r"--source 0: cannot be opened; is it connected and free.*found here: "),
        ("rtsp://camera/1", "is the address right"),
        (PIPELINE, "does gst-launch-1.0 run it"),
    ],
)
def test_what_cannot_be_opened_is_one_line_with_advice(text, expected, opened, monkeypatch: pytest.MonkeyPatch):
    closed = FakeCapture([], opened=False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: closed)
    with pytest.raises(UserError, match=expected):
        open_source(text, Path("out.mp4"), 0.5)
    assert closed.released


@pytest.mark.parametrize("number", ["1000", "99999999999", "9" * 5000])
def test_cameras_have_no_numbers_that_opencv_cannot_hold(number: str, opened):
    with pytest.raises(UsageError, match=r"cameras have numbers from 0 to 999; a file is \./"):
        open_source(number, None, 0.5)
    assert not opened


def test_a_stream_is_read_by_the_real_opencv(tmp_path: Path):
    address = f"file://{video(tmp_path / 'street.mp4', frames=4)}"
    with open_source(address, tmp_path / "out.mp4", 0.5) as source:
        frames = list(source)
    assert (len(frames), source.fps, source.frames) == (4, 10.0, 0)
    assert np.abs(frames[0].image.astype(int) - picture_of(1, 120, 90)).max() < 25


def test_a_pipeline_needs_an_opencv_with_gstreamer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: False)
    with pytest.raises(UnsupportedError, match="built without GStreamer, as all from pip are"):
        open_source(PIPELINE, Path("out.mp4"), 0.5)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, a video, another picture, and two broken ones."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "mixed"
    place.mkdir()
    write_image(place / "a.png", picture_of(1, 120, 90))
    video(place / "b.mp4", frames=3)
    write_image(place / "c.png", picture_of(2, 120, 90))
    (place / "d.png").write_bytes(b"")
    (place / "e.mp4").write_bytes(b"no video at all")
    return place


def test_a_folder_gives_pictures_and_videos_in_order_and_tells_what_is_broken(folder: Path):
    with files("mixed", picture_seconds=2.0) as source:
        frames = list(source)
    assert [frame.shown for frame in frames] == pytest.approx([2.0, 0.1, 0.1, 0.1, 2.0])
    assert all(frame.waited == 0 and frame.decoded > 0 for frame in frames)
    assert (source.fps, source.frames) == (10.0, 6)  # the broken picture is counted until it is read
    assert [Path(row.picture).name for row in source.broken] == ["d.png", "e.mp4"]


def test_a_folder_of_pictures_makes_a_video_of_one_frame_each(folder: Path):
    assert files("mixed/*.png", picture_seconds=0.25).fps == 4


def test_a_video_of_pictures_shown_for_long_has_a_rate_that_can_be_written(folder: Path):
    source = files("mixed/a.png", picture_seconds=3600)
    assert source.fps == 0.1
    with VideoWriter(folder / "long.mp4", source.fps) as writer:
        Recorder(writer, source.fps).write(picture_of(1, 120, 90), 60.0)
    with VideoReader(folder / "long.mp4") as reader:
        assert (reader.fps, len(list(reader))) == (pytest.approx(0.1), 6)


def test_an_earlier_result_in_the_folder_is_not_read(folder: Path):
    before = files("mixed", "mixed/demo.mp4").frames
    video(folder / "demo.mp4")
    assert files("mixed", "mixed/demo.mp4").frames == before


def test_where_nothing_is_written_every_file_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    video(folder / "demo.mp4", frames=5)
    monkeypatch.chdir(folder)
    assert open_source(".", Path("demo.mp4"), 0.5).frames == 6
    assert open_source(".", None, 0.5).frames == 11


def test_a_name_that_is_too_long_is_one_line():
    with pytest.raises(UserError, match=r"--source a+: file name too long; check the path"):
        open_source("a" * 300, None, 0.5)


def test_a_source_without_a_readable_frame_is_one_line(folder: Path):
    with pytest.raises(UserError, match=r"mixed/d\.png: no frame can be read; mixed/d\.png: an empty file"):
        list(files("mixed/d.png"))


# ----------------------------------------------------------------------------------------------------------- recording


def copies(times: list[float], fps: float) -> list[int]:
    """How often each frame of a camera is written that comes at these times."""
    writer, clock = FakeWriter(), iter(times)
    recorder = Recorder(writer, fps, clock=lambda: next(clock))  # type: ignore[arg-type]
    found = []
    for _ in times:
        before = len(writer.images)
        recorder.write(picture_of(1, 8, 8), None)
        found.append(len(writer.images) - before)
    return found


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([5.0, 5.1, 5.2, 5.3], [1, 1, 1, 1]),
        ([5.0, 5.5, 6.0], [1, 5, 5]),
        ([5.0, 5.04, 5.1, 5.14, 5.2], [1, 0, 1, 0, 1]),
    ],
)
def test_the_video_of_a_camera_runs_as_fast_as_the_world(times, expected):
    assert copies(times, 10.0) == expected


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30),
    st.floats(1, 120),
)
def test_a_recording_is_never_more_than_a_frame_off(steps: list[float], fps: float):
    times = np.cumsum(steps).tolist()
    written = sum(copies(times, fps))
    assert abs(written - ((times[-1] - times[0]) * fps + 1)) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([5.0, 5.5, 5.6], [1, 1, 1, 1, 1, 2, 3]),
        ([5.0, 5.04, 5.5], [1, 2, 2, 2, 2, 3]),  # what is too short for a frame of its own still fills the gap
    ],
)
def test_a_gap_is_filled_with_what_the_camera_saw_before_it(times, expected):
    writer, clock = FakeWriter(), iter(times)
    recorder = Recorder(writer, 10.0, clock=lambda: next(clock))  # type: ignore[arg-type]
    for number in range(1, len(times) + 1):
        recorder.write(np.full((8, 8, 3), number, np.uint8), None)
    assert [int(image[0, 0, 0]) for image in writer.images] == expected


def test_frames_of_files_are_written_as_long_as_they_last():
    writer = FakeWriter()
    recorder = Recorder(writer, 10.0)  # type: ignore[arg-type]
    for shown in (0.1, 0.1, 0.5, 0.05, 0.05):
        recorder.write(picture_of(1, 8, 8), shown)
    assert len(writer.images) == 8


def test_frames_of_other_sizes_are_fitted_into_the_first():
    writer = FakeWriter()
    recorder = Recorder(writer, 10.0)  # type: ignore[arg-type]
    for width, height in ((40, 20), (20, 40), (80, 40)):
        recorder.write(np.full((height, width, 3), 200, np.uint8), 0.1)
    assert [image.shape for image in writer.images] == [(20, 40, 3)] * 3
    upright = writer.images[1]
    assert np.flatnonzero(upright[10, :, 0]).tolist() == list(range(15, 25))
    assert (writer.images[2] == 200).all()


def test_a_picture_of_the_right_size_is_not_copied():
    image = picture_of(1, 40, 20)
    assert on_canvas(image, 40, 20) is image


# -------------------------------------------------------------------------------------------------------------- window


def test_a_window_shows_bgr_and_closes(monkeypatch: pytest.MonkeyPatch):
    gui = FakeGui(monkeypatch, [], [])
    window = Window("run")
    window.close()
    assert not gui.closed  # it never was open
    assert window.show(picture_of(2, 2560, 1440))
    assert window.show(picture_of(2, 2560, 1440))
    np.testing.assert_array_equal(gui.shown[0][0, 0], [90, 90, 125])
    assert gui.sizes == [(1280, 720)]
    assert Window("small").show(picture_of(2, 160, 80))
    assert gui.sizes[1] == (640, 320)
    window.close()
    assert gui.closed


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27, 0x100000 + ord("q")])
def test_q_and_escape_end(key: int, monkeypatch: pytest.MonkeyPatch):
    FakeGui(monkeypatch, [-1, ord("x"), key], [])
    window = Window("run")
    assert [window.show(picture_of(1, 9, 9)) for _ in range(3)] == [True, True, False]


def test_other_keys_do_not_shorten_a_pause(monkeypatch: pytest.MonkeyPatch):
    gui = FakeGui(monkeypatch, [-1, ord("x"), -1, ord(" ")], [])
    assert Window("run").pause(0.5)
    assert gui.now == pytest.approx(0.5)
    assert gui.waits == [50] * 11 + [48]  # each key cut a wait to a millisecond
    assert max(gui.waits) <= 50


@pytest.mark.parametrize(
    ("keys", "visible", "stops", "waits"),
    [([-1, ord("q")], [], 99, 2), ([], [1, 1, 0], 99, 3), ([], [], 4, 4), ([ord("x")] * 9, [], 5, 5)],
)
def test_a_long_pause_ends_within_50_ms(keys, visible, stops, waits, monkeypatch: pytest.MonkeyPatch):
    gui = FakeGui(monkeypatch, keys, visible)
    assert not Window("run").pause(3600, lambda: len(gui.waits) == stops)
    assert len(gui.waits) == waits


@pytest.mark.parametrize(("visible", "expected"), [([0, 1, 1, 0], [True, True, True, False]), ([-1] * 4, [True] * 4)])
def test_closing_the_window_ends_where_the_backend_tells(visible, expected, monkeypatch: pytest.MonkeyPatch):
    FakeGui(monkeypatch, [], visible)
    window = Window("run")
    assert [window.show(picture_of(1, 9, 9)) for _ in range(4)] == expected


def test_qt_fails_once_its_last_window_is_closed_which_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    FakeGui(monkeypatch, [], [])
    window = Window("run")
    assert window.show(picture_of(1, 9, 9))

    def fail(*_: Any) -> None:
        raise cv2.error("NULL guiReceiver (please create a window)")

    monkeypatch.setattr(cv2, "getWindowProperty", fail)
    monkeypatch.setattr(cv2, "destroyAllWindows", fail)
    assert not window.show(picture_of(1, 9, 9))
    window.close()


def test_a_window_that_cannot_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch):
    FakeGui(monkeypatch, [], [])

    def fail(*_: Any) -> None:
        raise cv2.error("Can't initialize GTK backend")

    monkeypatch.setattr(cv2, "namedWindow", fail)
    with pytest.raises(
        UnsupportedError, match=r"cannot open a window: Can't initialize GTK.*--headless --out demo\.mp4"
    ):
        Window("run").show(picture_of(1, 9, 9))


class Framework:
    def __init__(self, name: str) -> None:
        self.currentUIFramework = lambda: name


@pytest.mark.parametrize(
    ("framework", "environment", "platform", "expected"),
    [
        ("", {"DISPLAY": ":0"}, "linux", "this OpenCV has no windows"),
        ("QT5", {}, "linux", "there is no screen here"),
        ("QT5", {"DISPLAY": ""}, "linux", "there is no screen here"),
    ],
)
def test_without_windows_the_way_out_is_told(framework, environment, platform, expected: str):
    with pytest.raises(UnsupportedError, match=rf"{expected}.*use --headless --out demo\.mp4"):
        check_window(Framework(framework), environment, platform)


@pytest.mark.parametrize(
    ("framework", "environment", "platform"),
    [("QT5", {"DISPLAY": ":0"}, "linux"), ("GTK3", {"WAYLAND_DISPLAY": "wayland-0"}, "linux"), ("COCOA", {}, "darwin")],
)
def test_with_windows_and_a_screen_nothing_is_said(framework, environment, platform):
    check_window(Framework(framework), environment, platform)


def test_figures_stand_on_a_darkened_corner_and_lines_too_wide_are_left_out():
    canvas = np.full((200, 300, 3), 150, np.uint8)
    write_overlay(canvas, ("30 FPS", "a line that is far too wide for this picture " * 3))
    assert tuple(canvas[0, 0]) == (25, 25, 25)
    assert (canvas == 255).any()
    assert (canvas[30:] == 150).all()
    assert (canvas[:, 150:] == 150).all()
    plain = np.full((20, 5, 3), 150, np.uint8)
    write_overlay(plain, ("30 FPS",))
    write_overlay(plain, ())
    assert (plain == 150).all()


# ----------------------------------------------------------------------------------------------------------------- run


def test_every_frame_is_drawn_timed_and_recorded(folder: Path):
    writer = FakeWriter()
    recorder = Recorder(writer, 10.0)  # type: ignore[arg-type]
    told: list[tuple[int, int, str]] = []
    found = detector()
    with files("mixed/b.mp4") as source:
        done = run_live(found, source, SEEN, recorder=recorder, progress=lambda *row: told.append(row))
    assert (done.frames, done.ended, len(done.times), len(writer.images)) == (3, "source", 3, 3)
    assert told == [(1, 3, "mixed/b.mp4"), (2, 3, "mixed/b.mp4"), (3, 3, "mixed/b.mp4")]
    assert found.batches == [1] * 6  # three of the warm-up, which is not timed
    with VideoReader(folder / "b.mp4") as reader:
        plain = next(iter(reader))
    expected = drawn(plain, detector().detect([plain], SEEN)[0], ("cat", "dog"))
    assert (expected != plain).any()
    np.testing.assert_array_equal(writer.images[0], expected)  # no figures before the first are known
    assert (writer.images[2][:20] != expected[:20]).any()
    np.testing.assert_array_equal(writer.images[2][72:], expected[72:])
    for row in done.times:
        assert row.waiting == 0
        assert min(row[1:]) > 0
        assert row.frame == pytest.approx(sum(row) - row.output)
    assert sum(map(sum, done.times)) <= 1000 * done.seconds


def test_a_camera_runs_until_it_is_gone_and_is_never_held_back():
    with CameraFrames(FakeCapture([bgr(1), bgr(2)] * 5), "camera 0") as camera:
        done = run_live(detector(), camera, SEEN)
    assert (done.frames, done.ended) == (10, "source")
    assert done.fps == pytest.approx(10 / done.seconds)


def test_a_run_ends_after_so_many_frames_or_when_asked(folder: Path):
    done = run_live(detector(), files("mixed"), SEEN, frames=2)
    assert (done.frames, done.ended) == (2, "frames")
    answers = iter([False, False, True])
    done = run_live(detector(), files("mixed"), SEEN, stop=lambda: next(answers))
    assert (done.frames, done.ended) == (3, "asked")


def test_nothing_is_read_beyond_the_wanted_frames():
    capture = FakeCapture([bgr()] * 5)
    run_live(detector(), CameraFrames(capture, "camera 0"), SEEN, frames=2)
    assert len(capture.pictures) == 3


def test_ctrl_c_ends_the_run_and_keeps_what_was_done(folder: Path):
    def interrupt(done: int, *_: object) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    done = run_live(detector(), files("mixed"), SEEN, progress=interrupt)
    assert (done.frames, done.ended, len(done.times)) == (2, "asked", 2)


def test_q_in_the_window_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    gui = FakeGui(monkeypatch, [], [], quits_at=2)
    done = run_live(detector(), files("mixed/b.mp4"), SEEN, window=Window("run"))
    assert (done.frames, done.ended, len(gui.shown)) == (2, "asked", 2)


class Still(FileFrames):
    """Three times the same picture, each shown so many seconds."""

    def __init__(self, shown: float) -> None:
        super().__init__("still", (), shown)
        self.image, self.shown = picture_of(1, 120, 90), shown

    def __iter__(self):
        return iter([Frame(self.image, 0.0, 0.0, self.shown)] * 3)


@pytest.fixture
def gui(monkeypatch: pytest.MonkeyPatch) -> FakeGui:
    """Windows by whose clock the run goes too, so that only their waits take time."""
    found = FakeGui(monkeypatch, [], [])
    monkeypatch.setattr(live, "perf_counter", found.clock)
    return found


def test_in_a_window_a_video_is_not_faster_than_in_a_player(gui: FakeGui):
    done = run_live(detector(), Still(0.1), SEEN, window=Window("run"))
    assert gui.waits == [1, 50, 49] * 3  # one of showing, the others of the pause
    assert done.seconds == pytest.approx(0.3)
    assert [row.waiting for row in done.times] == pytest.approx([99.0] * 3)


def test_a_camera_in_a_window_is_never_held_back(gui: FakeGui):
    run_live(detector(), CameraFrames(FakeCapture([bgr()] * 3), "camera 0"), SEEN, window=Window("run"))
    assert gui.waits == [1, 1, 1]


@pytest.mark.parametrize(("seconds", "frames"), [(0.001, 1), (59.0, 1), (61.0, 2), (1000.0, 3)])
def test_the_time_limit_ends_a_run_and_the_time_of_a_picture(seconds: float, frames: int, gui: FakeGui):
    done = run_live(detector(), Still(60.0), SEEN, window=Window("run"), seconds=seconds)
    assert (done.frames, done.ended) == (frames, "source" if frames == 3 else "asked")
    assert done.seconds == pytest.approx(min(seconds, 180.0), abs=0.06)


def test_the_time_limit_begins_after_the_warm_up(gui: FakeGui):
    class Slow(FakeDetector):
        def raw(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            gui.now += 10.0
            return super().raw(images)

    found = Slow(("cat", "dog"), {1: ((120, 90), [(*BOX, 0, 0.8)]), 2: ((120, 90), [])})
    assert run_live(found, Still(0.1), SEEN, seconds=15.0).frames == 2


def test_the_frames_themselves_stay_as_they_are():
    source = Still(0.1)
    assert run_live(detector(), source, SEEN).frames == 3
    np.testing.assert_array_equal(source.image, picture_of(1, 120, 90))


# ------------------------------------------------------------------------------------------------------------- figures


def test_median_and_p99_of_each_part():
    times = tuple(FrameTimes(100.0, 1.0, 2.0, float(i), 3.0, 4.0, 50.0) for i in range(101))
    done = LiveRun(101, 20.2, times, "source")
    found = done.statistics()
    assert list(found) == [*FrameTimes._fields, "frame"]
    assert found["network"] == (50.0, 99.0)
    assert found["waiting"] == (100.0, 100.0)
    assert found["frame"] == (60.0, 109.0)
    assert done.fps == pytest.approx(5)
    assert done.possible_fps == pytest.approx(1000 / 60)


def test_without_frames_there_are_no_figures():
    done = LiveRun(0, 1.0, (), "asked")
    assert (done.fps, done.possible_fps, done.statistics()) == (0, 0, {})


def test_the_corner_tells_means_of_recent_frames():
    rows = FrameTimes(10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0), FrameTimes(30.0, 3.0, 2.0, 5.0, 4.0, 5.0, 6.0)
    assert overlay(rows) == (
        "25.0 FPS",
        "network 4.0 ms  frame 17.0 ms",
        "decode 2.0  letterbox 2.0  NMS 4.0  drawing 5.0",
    )
    assert overlay(()) == ()
