"""The trtexec command that builds a TensorRT engine of an ONNX file on the target; engines do not travel."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from scaler.devices import Precision
from scaler.errors import UserError
from scaler.evaluation.onnx_metadata import NumberFormat, read_metadata
from scaler.export.int8 import target_of
from scaler.graph.graph import INPUT_NAME
from scaler.runtimes.onnx_facts import load_model
from scaler.runtimes.tensorrt_api import load_api
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Version, check_dla
from scaler.runtimes.trtexec import Trtexec
from scaler.runtimes.trtexec_flags import TrtexecSettings, build_options, open_batch_options

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
        UserError: There is no such file, it is none of scaler's detectors, or in 8 bits for ONNX Runtime.
    """
    model = load_model(Path(path), "reading ONNX files")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    metadata = read_metadata(properties, path)
    if target_of(properties) == "onnxruntime":
        raise UserError(
            f"{path}: its 8 bits are written for ONNX Runtime, which TensorRT refuses; export the checkpoint with "
            "--precision int8 --target tensorrt"
        )
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    precision = "int8" if quantised else metadata.precision
    return EngineFile(Path(path), metadata.preprocessing.size, not batch.dim_value, precision)


def engine_precision(file: EngineFile, version: Version, wanted: Precision) -> Precision:
    """Of an engine: an INT8 file stays INT8, and TensorRT from 11 on takes any precision from the file."""
    return cast("Precision", file.precision) if file.precision == "int8" or version >= STRONGLY_TYPED else wanted


def engine_command(
    file: EngineFile, version: Version, *, precision: Precision = "fp16", batch: int = 1, dla: int | None = None
) -> str:
    """The command, for a shell in the folder of the file on the target.

    It builds with the options with which scaler times engines.

    Args:
        file: The ONNX file.
        version: TensorRT of the target.
        precision: Of the engine, where it is not the file's, see `engine_precision`.
        batch: The most pictures at a time, and those it is made fast for, where the file leaves it open.
        dla: Core of the DLA that computes what it can; the GPU computes the rest.

    Raises:
        UsageError: A DLA does not compute this (`scaler.runtimes.tensorrt_version.check_dla`).
    """
    precision = engine_precision(file, version, precision)
    check_dla(dla, precision, version, open_batch=file.dynamic)
    name = Path(file.path.name)
    engine, cache = name.with_suffix(".engine"), name.with_suffix(".timing-cache")
    options = build_options(replace(_SETTINGS, precision=precision, dla=dla), version, name, engine, cache)
    if file.dynamic:
        options += open_batch_options(INPUT_NAME, (3, file.size, file.size), batch)
    return shlex.join(["trtexec", *options])


def version_here() -> Version:
    """Of the TensorRT of this computer, in process or trtexec's.

    Raises:
        UserError: There is none.
    """
    try:
        return load_api().version
    except UserError:
        return Trtexec().version
