"""A detector from an ONNX file, run by ONNX Runtime; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Preprocessing
from scaler.errors import FileError, MissingExtraError, UnsupportedError, UserError
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.onnx_metadata import OnnxMetadata, read_metadata
from scaler.evaluation.raw_outputs import BoxesAndScores, in_batches, only_selected

_OUTPUTS = ("boxes", "scores")
_SELECTED = "selected_indices"
"""Output of files with ONNX' NMS inside."""
_PLUGIN = "EfficientNMS_TRT"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SEVERITY_ERROR = 3
_TODO = "name the best.onnx of a training run, or a file of scaler export"


class OnnxDetector:
    """Runs a file that `scaler.training.network.onnx_file` wrote: outputs `boxes` and `scores`, before NMS.

    A file with ONNX' NMS inside also says which scores that leaves: `raw` gives 0 for all others, so that what is found
    in pictures, and its AP, are the file's own wherever `selection` is no stricter.

    Args:
        path: The file.
        device: `cpu`, `cuda` (`cuda:1` is the second GPU), or `auto`: a GPU where this ONNX Runtime has one.
        threads: Threads within an operator; 0 lets ONNX Runtime choose.

    Attributes:
        metadata: What the file says of itself.

    Raises:
        MissingExtraError: The package `onnxruntime` is not installed.
        FileError: There is no such file, or it is none of scaler's detectors.
        UnsupportedError: The device is not there, or the file's NMS is a plugin of TensorRT.
    """

    def __init__(self, path: Path | str, device: str = "auto", *, threads: int = 0) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError:
            raise MissingExtraError("running ONNX files", "onnxruntime", "evaluate") from None
        self._path = Path(path)
        self._session: Any = _session(onnxruntime, self._path, _provider(onnxruntime, device), threads)
        self.metadata: OnnxMetadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._input, self._batch = self._checked_input()
        self._outputs = self._checked_outputs()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""
        return self.metadata.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What it wants pictures to be like."""
        return self.metadata.preprocessing

    @property
    def selection(self) -> Selection | None:
        """Which boxes counted when its AP was computed in training; None where the file does not tell."""
        return self.metadata.selection

    def raw(self, images: Image) -> BoxesAndScores:
        """Boxes and scores of fitted pictures, see `Detector.raw`; as many at a time as the file is made for."""
        return self._of_all(images, self._outputs)

    def before_nms(self, images: Image) -> BoxesAndScores:
        """As `raw`, without the NMS of the file where it has one."""
        return self._of_all(images, _OUTPUTS)

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
        return detect(self, images, selection)

    def _of_all(self, images: Image, outputs: Sequence[str]) -> BoxesAndScores:
        def run(values: FloatArray) -> BoxesAndScores:
            return self._run(values, outputs)

        return in_batches(images, self.preprocessing, run, most=self._batch, fixed=bool(self._batch))

    def _run(self, values: FloatArray, outputs: Sequence[str]) -> BoxesAndScores:
        try:
            boxes, scores, *selected = self._session.run(list(outputs), {self._input: values})
        except Exception as error:  # ONNX Runtime's own errors share no base class with a name
            raise UserError(f"{self._path}: ONNX Runtime failed: {_first_line(error)}") from None
        scores = only_selected(scores, selected[0]) if selected else scores
        return np.asarray(boxes, np.float32), np.asarray(scores, np.float32)

    def _checked_input(self) -> tuple[str, int]:
        """Name of the input and its batch; 0 where any will do."""
        inputs = self._session.get_inputs()
        size = self.preprocessing.size
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != [3, size, size]:
            shapes = ", ".join(f"{value.name} {value.shape}" for value in inputs)
            raise FileError(self._path, "inputs", shapes, f"expected one of [batch, 3, {size}, {size}]", _TODO)
        batch = inputs[0].shape[0]
        return inputs[0].name, batch if isinstance(batch, int) else 0

    def _checked_outputs(self) -> tuple[str, ...]:
        """Names of those that are read."""
        shapes = {value.name: value.shape for value in self._session.get_outputs()}
        if not shapes.keys() >= {*_OUTPUTS}:
            found = ", ".join(shapes)
            raise FileError(self._path, "outputs", found, f"expected {' and '.join(_OUTPUTS)}, before NMS", _TODO)
        count = shapes["scores"][-1]
        if isinstance(count, int) and count != len(self.classes):
            names = f"but its metadata name {len(self.classes)}"
            raise FileError(self._path, "outputs", f"scores of {count} classes, {names}", todo=_TODO)
        return (*_OUTPUTS, _SELECTED) if _SELECTED in shapes else _OUTPUTS


def _provider(package: Any, device: str) -> tuple[str, dict[str, int]]:
    kind, _, number = device.partition(":")
    available = package.get_available_providers()
    if kind == "auto":
        kind = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    if kind not in _PROVIDERS or (number and not number.isdecimal()):
        raise UnsupportedError(f"--device {device}: ONNX files run on auto, cpu, cuda or cuda:<number>")
    if _PROVIDERS[kind] not in available:
        raise UnsupportedError(
            f"--device {device}: this ONNX Runtime has no {kind}; use --device cpu, or install onnxruntime-gpu"
        )
    return _PROVIDERS[kind], {"device_id": int(number)} if number and kind == "cuda" else {}


def _session(package: Any, path: Path, provider: tuple[str, dict[str, int]], threads: int) -> Any:
    if not path.is_file():
        raise FileError(path, "", "is a folder" if path.is_dir() else "no such file", todo="check the path")
    options = package.SessionOptions()
    options.log_severity_level = _SEVERITY_ERROR
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # pictures are read meanwhile
    try:
        return package.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # see `OnnxDetector._run`
        if _PLUGIN in str(error):
            raise UnsupportedError(
                f"{path}: its NMS is {_PLUGIN}, a plugin of TensorRT, which ONNX Runtime has not; "
                "write the file with --nms none or --nms onnx to run it here"
            ) from None
        raise FileError(path, "", f"ONNX Runtime refuses it: {_first_line(error)}", todo=_TODO) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
