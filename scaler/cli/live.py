"""`scaler run`: a trained network on a camera or a video, live."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.evaluate import Device, Half, in_tenths, tell_broken
from scaler.cli.options import Json, console, print_json, say
from scaler.errors import UsageError, UserError

if TYPE_CHECKING:
    from scaler.evaluation.detections import Detector, Selection
    from scaler.evaluation.live import LiveRun
    from scaler.evaluation.live_frames import FrameSource

_TITLES = {
    "waiting": "waiting",
    "decoding": "decode",
    "letterbox": "letterbox",
    "network": "network",
    "nms": "NMS",
    "drawing": "drawing",
    "frame": "whole frame",
    "output": "showing and writing",
}
"""Rows of the table by part."""


def command(
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="The best.onnx or best.pt of a run, or a TensorRT .engine.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            "-s",
            help="A camera by its number or device file, a GStreamer pipeline, an address (rtsp://...), a video, a "
            "picture, or a folder of them.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write what is shown into this .mp4 file.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Without a window; needs --out.")] = False,
    confidence: Annotated[float, typer.Option("--confidence", min=0, max=1, help="Least score of a detection.")] = 0.25,
    iou: Annotated[
        float, typer.Option("--iou", min=0, max=1, help="Overlap above which the worse of two boxes is dropped.")
    ] = 0.5,
    max_detections: Annotated[int, typer.Option("--max-detections", min=1, help="Most of a frame.")] = 100,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="End after so many frames.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.001, help="End after this time, warm-up not counted.")
    ] = None,
    picture_seconds: Annotated[
        float, typer.Option("--picture-seconds", min=0.01, max=3600, help="How long a picture of a folder is shown.")
    ] = 0.5,
    device: Device = "auto",
    half: Half = False,
    json_output: Json = False,
) -> None:
    """Show what a trained network finds in a camera or a video, with its frame rate and where the time goes.

    q in the window or Ctrl-C ends it; the video that was written until then is whole.

    A Jetson's CSI camera is a pipeline: "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720 ! nvvidconv
    ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1"

    Example: scaler run --model runs/best/best.onnx --source 0
    """
    model, source = _given(model, source)
    video = _checked(source, out, headless)
    from scaler.evaluation.detections import Selection  # noqa: PLC0415  (the help needs no numpy)
    from scaler.evaluation.live_frames import is_camera, open_source  # noqa: PLC0415
    from scaler.evaluation.live_output import Window  # noqa: PLC0415
    from scaler.training.network.loading import load_detector  # noqa: PLC0415

    window = None if headless else Window(f"scaler run {model} (q ends)")
    selection = Selection(confidence=confidence, iou=iou, most=max_detections)
    with ExitStack() as open_things:
        frames_of = open_things.enter_context(open_source(source, video, picture_seconds))
        detector = load_detector(model, device, half=half)
        if window:
            open_things.callback(window.close)
        done = _run(detector, frames_of, selection, window, video, frames, seconds)
    if done.ended == "source" and is_camera(source):
        say(f"scaler: {frames_of.name} gives no more frames")
    tell_broken(frames_of.broken, len(frames_of.broken) + done.frames)
    if not done.frames:
        raise UserError(f"{frames_of.name}: ended before the first frame; nothing was written")
    written = str(video) if video else None
    if json_output:
        print_json(_plain(done, frames_of, written))
    else:
        _print(done, frames_of, written)
    if frames_of.broken:
        raise typer.Exit(1)


def _given(model: Path | None, source: str | None) -> tuple[Path, str]:
    if model is None:
        raise UsageError("which network? give for instance --model runs/best/best.onnx")
    if source is None:
        raise UsageError("what is it to look at? give for instance --source 0 (a camera) or --source street.mp4")
    return model, source


def _checked(source: str, out: Path | None, headless: bool) -> Path | None:
    """The video that is to be written, its folder made.

    Raises:
        UsageError: Neither window nor file, another suffix, or the source itself.
        UserError: The folder cannot be made or written into.
    """
    if out is None:
        if headless:
            raise UsageError("--headless shows nothing: where does the video go? give for instance --out demo.mp4")
        return None
    if out.suffix.lower() != ".mp4":
        raise UsageError(f"--out {out}: videos are written as .mp4 files; name for instance demo.mp4")
    from scaler.files import make_folder  # noqa: PLC0415

    make_folder(out.parent)
    try:
        if out.is_dir():
            raise UsageError(f"--out {out}: is a folder; name a file in it, for instance {out / 'demo.mp4'}")
    except OSError as error:  # a name too long
        raise UsageError(f"--out {out}: {(error.strerror or str(error)).lower()}; name another file") from None
    if _same(out, source):
        raise UsageError(f"--out {out}: it is read too and would be overwritten; name another file")
    return out


def _same(out: Path, source: str) -> bool:
    """Whether both are one file; False where one is not there or cannot be asked for: a pipeline is a long name."""
    try:
        return out.samefile(source)
    except OSError:
        return False


def _run(
    detector: Detector,
    source: FrameSource,
    selection: Selection,
    window: Any,
    out: Path | None,
    frames: int | None,
    seconds: float | None,
) -> LiveRun:
    from scaler.evaluation.live import run_live  # noqa: PLC0415
    from scaler.evaluation.live_output import Recorder  # noqa: PLC0415
    from scaler.evaluation.video import VideoWriter  # noqa: PLC0415
    from scaler.training.loop.interrupts import Interrupts  # noqa: PLC0415

    say(f"scaler: {source.name}; {'q in the window or ' if window else ''}Ctrl-C ends")
    progress_of_many = in_tenths("running") if source.frames or frames else nullcontext()
    with (
        Interrupts() as interrupts,
        nullcontext() if out is None else VideoWriter(out, source.fps) as writer,
        progress_of_many as progress,
    ):
        return run_live(
            detector,
            source,
            selection,
            window=window,
            recorder=None if writer is None else Recorder(writer, source.fps),
            frames=frames,
            seconds=seconds,
            stop=lambda: interrupts.wanted,
            progress=progress,
        )


def _plain(done: LiveRun, source: FrameSource, written: str | None) -> dict[str, Any]:
    return {
        "source": source.name,
        "frames": done.frames,
        "seconds": done.seconds,
        "fps": done.fps,
        "possible_fps": done.possible_fps,
        "milliseconds": {name: row._asdict() for name, row in done.statistics().items()},
        "ended": done.ended,
        "out": written,
        "broken": [row._asdict() for row in source.broken],
    }


def _print(done: LiveRun, source: FrameSource, written: str | None) -> None:
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    table = Table("part of a frame", box=None, pad_edge=False, header_style="bold")
    for heading in ("median ms", "p99 ms"):
        table.add_column(heading, justify="right")
    statistics = done.statistics()
    for name, title in _TITLES.items():
        row = statistics[name]
        table.add_row(title, f"{row.median:.2f}", f"{row.p99:.2f}", end_section=name == "frame")
    screen.print(table)
    into = f" -> {written}" if written else ""
    screen.print(
        f"{source.name}: {done.frames} frames in {done.seconds:.1f} s, {done.fps:.1f} FPS, {done.possible_fps:.1f} "
        f"without waiting, showing and writing{into}",
        markup=False,
        soft_wrap=True,
    )
