"""A detector from a file, whatever runs it; torch is loaded for checkpoints alone."""

from __future__ import annotations

from pathlib import Path

from scaler.errors import UsageError
from scaler.evaluation.detections import Detector


def load_detector(path: Path | str, device: str = "auto", *, half: bool = False) -> Detector:
    """Load a checkpoint (`.pt`), an ONNX file (`.onnx`) or a TensorRT engine (`.engine`) of scaler's.

    Args:
        path: The file.
        device: `auto`, `cpu`, `cuda` or `cuda:<number>`.
        half: Whether torch computes in 16 bits, on a GPU.

    Raises:
        UsageError: Another suffix, or half precision for what is no checkpoint.
        FileError: The file is missing or damaged.
        UnsupportedError: The device is not there, or the engine was built elsewhere.
        MissingExtraError: What runs the file is not installed.
    """
    match Path(path).suffix.lower():
        case ".onnx":
            from scaler.evaluation.onnx_detector import OnnxDetector  # noqa: PLC0415

            if half:
                raise UsageError(f"{path}: an ONNX file runs in the precision that it was written in; leave --half out")
            return OnnxDetector(path, device)
        case ".engine":
            from scaler.evaluation.engine_detector import EngineDetector  # noqa: PLC0415

            if half:
                raise UsageError(f"{path}: an engine runs in the precision that it was built in; leave --half out")
            return EngineDetector(path, device)
        case ".pt":
            from scaler.training import require_torch  # noqa: PLC0415

            require_torch()
            from scaler.training.network.checkpoint import load_into, read_checkpoint  # noqa: PLC0415
            from scaler.training.network.detector import TorchDetector  # noqa: PLC0415
            from scaler.training.network.module import to_torch  # noqa: PLC0415

            checkpoint = read_checkpoint(path)
            module = to_torch(checkpoint.spec.graph())
            load_into(module, checkpoint, path)
            return TorchDetector(checkpoint.spec, module, device, half=half, selection=checkpoint.selection)
        case suffix:
            found = f"{suffix!r} files" if suffix else "files without a suffix"
            raise UsageError(
                f"{path}: {found} are no networks; name the best.pt or best.onnx of a training run, or an .engine"
            )
