"""What runs a trained file on the device at hand, as it will be deployed: the file itself, or its TensorRT engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scaler.deploy.engine import EngineOrder, build_engine
from scaler.devices import Precision, ThreadMode
from scaler.errors import FileError
from scaler.evaluation.detections import Detector
from scaler.evaluation.onnx_metadata import OnnxMetadata
from scaler.profiling.machine import Setting
from scaler.runtimes.engine_facts import SUFFIX, digest, read_engine_facts
from scaler.runtimes.protocol import Conditions

__all__ = ["Deployed", "deployed"]

_TENSORRT = "tensorrt"


@dataclass(frozen=True)
class Deployed:
    """A file that a runtime of the device takes."""

    file: Path
    """The ONNX file, or the engine."""
    precision: str
    """In which it computes."""
    threads: int
    """Of ONNX Runtime; 0 for an engine."""

    @cached_property
    def detector(self) -> Detector:
        """Finds objects with it.

        Raises:
            UserError: What runs it in this process is not installed, or refuses it.
        """
        if self.file.suffix.lower() == SUFFIX:
            from scaler.evaluation.engine_detector import EngineDetector  # noqa: PLC0415

            return EngineDetector(self.file)
        from scaler.evaluation.onnx_detector import OnnxDetector  # noqa: PLC0415

        return OnnxDetector(self.file, "cpu", threads=self.threads)


def deployed(model: Path, metadata: OnnxMetadata, wanted: Setting, conditions: Conditions) -> Deployed:
    """Make a trained file ready for the device: on TensorRT its engine, which stays beside it.

    An engine that was built of this very file for this TensorRT and GPU is used again.

    Args:
        model: An ONNX file or an engine.
        metadata: What it says of itself.
        wanted: Device and precision.
        conditions: Of the runtime at hand.

    Raises:
        UserError: No engine can be built of it here.
    """
    if wanted.runtime != _TENSORRT:
        mode = wanted.mode
        return Deployed(model, metadata.precision, mode.threads if isinstance(mode, ThreadMode) else 1)
    if model.suffix.lower() == SUFFIX:
        return Deployed(model, read_engine_facts(model).precision, 0)
    precision: Precision = "int8" if metadata.precision == "int8" else wanted.precision
    own = model.with_name(f"{model.stem.removesuffix(f'-{precision}')}-{precision}{SUFFIX}")
    for engine in (model.with_suffix(SUFFIX), own):
        if _is_of(engine, model, precision, conditions):
            return Deployed(engine, precision, 0)
    built = build_engine(EngineOrder(model=model, out=own, precision=precision))
    return Deployed(built.path, built.facts.precision, 0)


def _is_of(engine: Path, model: Path, precision: str, conditions: Conditions) -> bool:
    """Whether an engine was built of this file, as it is wanted and for what runs here."""
    if not engine.is_file():
        return False
    try:
        facts = read_engine_facts(engine)
    except FileError:  # is built again
        return False
    here = (facts.tensorrt, facts.gpu, facts.precision) == (conditions.runtime_version, conditions.processor, precision)
    return here and facts.dla is None and facts.model_sha256 == digest(model.read_bytes())
