"""A detector from a TensorRT engine that was built on this computer; needs neither torch nor ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Preprocessing
from scaler.errors import FileError, UnsupportedError, UsageError
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, read_metadata
from scaler.evaluation.raw_outputs import BoxesAndScores, in_batches, only_selected, scattered
from scaler.runtimes.engine_facts import EngineFacts
from scaler.runtimes.tensorrt_inference import TensorRtInference

_RAW = ("boxes", "scores")
_SELECTED = "selected_indices"
"""Output of files with ONNX' NMS inside."""
_EFFICIENT = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""Outputs of files with TensorRT's EfficientNMS inside."""
_DEVICES = ("auto", "cuda", "cuda:0")
_TODO = "build it of the best.onnx of a training run, or of a file of scaler export"


class EngineDetector:
    """Runs an engine that `scaler.deploy.engine` built of a file of scaler's.

    Of an engine with an NMS inside, `raw` gives what that leaves, and 0 for all other scores: what is found in
    pictures, and its AP, are the engine's own wherever `selection` is no stricter.

    Args:
        path: The engine; `<name>.engine.json` lies beside it.
        device: `auto` or `cuda`; engines run on the first GPU.

    Attributes:
        metadata: What its ONNX file said of itself.

    Raises:
        MissingExtraError: The package `tensorrt` or `pycuda` is not installed.
        FileError: There is no such file, it is damaged, or it is none of scaler's detectors.
        UnsupportedError: There is no GPU, or the engine is of another TensorRT or GPU.
        UsageError: Another device.
    """

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        if device not in _DEVICES:
            raise UsageError(f"--device {device}: an engine runs on the first GPU; leave --device out")
        self._path = Path(path)
        self._inference = TensorRtInference(path)
        known = self._inference.facts.metadata
        self.metadata: OnnxMetadata = read_metadata({KEY: known} if known else {}, path)
        self._check()

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
        """Which boxes counted when its AP was computed in training; None where its file did not tell."""
        return self.metadata.selection

    @property
    def facts(self) -> EngineFacts:
        """How the engine was built."""
        return self._inference.facts

    def raw(self, images: Image) -> BoxesAndScores:
        """Boxes and scores of fitted pictures, see `Detector.raw`; as many at a time as the engine is made for."""
        fixed = not self.facts.open_batch
        return in_batches(images, self.preprocessing, self._run, most=self.facts.batch, fixed=fixed)

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
        return detect(self, images, selection)

    def close(self) -> None:
        """Give the GPU's memory back; closing twice does no harm."""
        self._inference.close()

    def _run(self, values: FloatArray) -> BoxesAndScores:
        outputs = self._inference.run(values)
        if _EFFICIENT[0] in outputs:
            counts, boxes, scores, labels = (outputs[name] for name in _EFFICIENT)
            scores = scattered(counts, scores, labels, len(self.classes))
        else:
            boxes, scores = (outputs[name] for name in _RAW)
            scores = only_selected(scores, outputs[_SELECTED]) if _SELECTED in outputs else scores
        return np.asarray(boxes, np.float32), np.asarray(scores, np.float32)

    def _check(self) -> None:
        """Refuse what is no detector, and outputs that cannot be read."""
        outputs: Mapping[str, Any] = self._inference.outputs
        if not (outputs.keys() >= {*_RAW} or outputs.keys() >= {*_EFFICIENT}):
            found = ", ".join(outputs)
            raise FileError(self._path, "outputs", found, f"expected {' and '.join(_RAW)}", _TODO)
        if _SELECTED in outputs and -1 not in outputs[_SELECTED].shape:
            raise UnsupportedError(
                f"{self._path}: this TensorRT fills the output of its NMS up, so that what was found cannot be told "
                "from the rest; build it of a file of --nms none or --nms efficient-nms"
            )
        size = self.preprocessing.size
        if self.facts.picture != (3, size, size):
            found = "x".join(map(str, self.facts.picture))
            raise FileError(self._path, "input", found, f"its metadata say 3x{size}x{size}", _TODO)
