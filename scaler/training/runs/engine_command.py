"""The trtexec command that builds a TensorRT engine of an ONNX file on the target; engines do not travel."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from scaler.devices import Precision
from scaler.errors import UsageError
from scaler.evaluation.onnx_metadata import NumberFormat, read_metadata
from scaler.graph.graph import INPUT_NAME
from scaler.runtimes.onnx_facts import load_model
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Version, check_version
from scaler.runtimes.trtexec_flags import TrtexecSettings, build_options

DEFAULT_VERSION = Version(10, 3, 0)
"""Of JetPack 6.1 and 6.2."""
_SETTINGS = TrtexecSettings(precision="fp16", workspace_mib=512, warm_up_ms=500, cuda_graph=False)
"""Those of `scaler.runtimes.trtexec.Trtexec`, so that the engine is built like those that scaler measures."""


class EngineFile(NamedTuple):
    """What building an engine needs to know of an ONNX file."""

    path: Path
    size: int
    """Side of the input in pixels."""
    dynamic: bool
    """Whether the batch is open."""
    precision: NumberFormat


def read_engine_file(path: Path | str) -> EngineFile:
    """Read an ONNX file of scaler's.

    Raises:
        MissingExtraError: The package `onnx` is not installed.
        UserError: There is no such file, or it is none of scaler's detectors.
    """
    model = load_model(Path(path), "reading ONNX files")
    metadata = read_metadata({entry.key: entry.value for entry in model.metadata_props}, path)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    precision = "int8" if quantised else metadata.precision
    return EngineFile(Path(path), metadata.preprocessing.size, not batch.dim_value, precision)


def engine_precision(file: EngineFile, version: Version, wanted: Precision) -> Precision:
    """Of an engine: an INT8 file stays INT8, and TensorRT from 11 on takes any precision from the file."""
    return cast("Precision", file.precision) if file.precision == "int8" or version >= STRONGLY_TYPED else wanted


def engine_command(file: EngineFile, version: Version, *, precision: Precision = "fp16", batch: int = 1) -> str:
    """The command, for a shell in the folder of the file on the target.

    It builds with the options with which scaler times engines.

    Args:
        file: The ONNX file.
        version: TensorRT of the target.
        precision: Of the engine, where it is not the file's, see `engine_precision`.
        batch: The most pictures at a time, and those it is made fast for, where the file leaves it open.
    """
    precision = engine_precision(file, version, precision)
    name = Path(file.path.name)
    engine, cache = name.with_suffix(".engine"), name.with_suffix(".timing-cache")
    options = build_options(replace(_SETTINGS, precision=precision), version, name, engine, cache)
    if file.dynamic:
        limits = (("min", 1), ("opt", batch), ("max", batch))
        options += [f"--{key}Shapes={INPUT_NAME}:{n}x3x{file.size}x{file.size}" for key, n in limits]
    return shlex.join(["trtexec", *options])


def parse_version(text: str) -> Version:
    """A version as a user writes it: `8.2`, `10.3`, `8.5.2`.

    Raises:
        UsageError: It is none.
        UnsupportedError: It is older than 8.0.
    """
    parts = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*", text)
    if parts is None:
        raise UsageError(f"--tensorrt {text}: expected a version, such as 8.2 (JetPack 4.6) or 10.3 (JetPack 6.2)")
    version = Version(*(int(part or 0) for part in parts.groups()))
    check_version(version)
    return version
