"""A bundle: a plan, its networks and what measures them, in one archive for a device that cannot run scaler.

`scaler/profiling/agent` holds the programs that go along; they need trtexec, and Python 3.6 or just a shell.
`scaler.profiling.bundle_import` reads what they bring back.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scaler import __version__
from scaler.devices import load_device
from scaler.errors import UnsupportedError, UsageError
from scaler.export.onnx_model import to_onnx
from scaler.export.onnx_nodes import SEPARATOR
from scaler.export.weights import Array, WeightSource, timing_weights
from scaler.files import write_atomic
from scaler.graph.graph import Layer
from scaler.profiling.networks import graph_of, space_of
from scaler.profiling.plan_file import Plan, write_plan
from scaler.space import Params, Space

__all__ = [
    "FOLDER",
    "REFERENCE",
    "BundleSummary",
    "network_model",
    "packing_weights",
    "plan_space",
    "strongly_typed",
    "write_archive",
    "write_bundle",
]

SCHEMA_VERSION = 1
KIND = "scaler-bundle"
FOLDER = "scaler-bundle"
"""Folder that a bundle unpacks to."""
REFERENCE = "reference"
"""Name of the reference network in a bundle; no other may have it."""

_AGENT = Path(__file__).parent / "agent"
_PROGRAMS = ("measure.sh", "measure.py", "bench.py", "device.py")
_PERIOD = 509  # of the weights, in numbers; prime, so that hardly two filters are equal
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")

Progress = Callable[[int, int], None]
"""Called with the networks written and those to write."""


class BundleSummary(NamedTuple):
    """What was written."""

    path: Path
    networks: int
    """Without the reference."""
    packed_bytes: int
    unpacked_bytes: int
    """What the device's disk must hold, before engines and results."""


def write_bundle(plan: Plan, path: Path, *, typed: bool = False, progress: Progress | None = None) -> BundleSummary:
    """Write a bundle, whole or not at all; equal plans give equal bytes.

    Args:
        plan: What to measure, with TensorRT.
        path: The archive, `.tar.gz`.
        typed: Store FP16 in the models themselves, as TensorRT 11 wants it and TensorRT 10 can take it; older ones
            cannot. The other precisions of TensorRT 11 are those of plain models.
        progress: Told after each network.

    Raises:
        UsageError: The plan is for another runtime, or a network's name is no file name.
        UnsupportedError: INT8 with typed models, or an operator that TensorRT 8.2 lacks.
        UserError: The space is not the plan's, or the archive cannot be written.
    """
    _check(plan, typed)
    packed, unpacked = write_archive(path, _files(plan, typed, progress))
    return BundleSummary(path, len(plan.networks), packed, unpacked)


def write_archive(path: Path, files: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """Write a bundle of files and their checksums, whole or not at all; equal files give equal bytes.

    Args:
        path: The archive, `.tar.gz`.
        files: Names below the bundle's folder, and contents.

    Returns:
        Bytes of the archive and of the files.

    Raises:
        UserError: It cannot be written.
    """
    packed = io.BytesIO()
    sums: list[tuple[str, str]] = []
    unpacked = 0
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in files:
            _add(archive, name, content)
            sums.append((name, sha256(content).hexdigest()))
            unpacked += len(content)
        _add(archive, "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sorted(sums)).encode())
    write_atomic(path, packed.getvalue())
    return len(packed.getvalue()), unpacked


def plan_space(plan: Plan) -> Space:
    """The search space of a plan, which holds all its networks.

    Raises:
        UserError: It is not the one that the plan was made for, or a network or the data set is none of its.
    """
    space = space_of(plan)
    for params in (plan.reference, *(planned.params for planned in plan.networks)):
        space.canonical(params)
    return space


def packing_weights(layer: Layer) -> dict[str, Array]:
    """Timing weights that compress: a shorter pattern, which still repeats with batch normalisation folded in."""
    arrays = timing_weights(layer)
    for name, values in arrays.items():
        same = name in ("gamma", "variance")
        arrays[name] = np.ones_like(values) if same else np.resize(values.ravel()[:_PERIOD], values.shape)
    return arrays


def network_model(plan: Plan, space: Space, params: Params, weights: WeightSource = packing_weights) -> ModelProto:
    """The ONNX model of a network of a plan."""
    return to_onnx(graph_of(space, params, plan.dataset), weights=weights, batch=plan.batch, opset=plan.opset)


def strongly_typed(model: ModelProto) -> ModelProto:
    """A model that computes in FP16 between an input and outputs in FP32, as an engine built with `--fp16` does."""
    typed = ModelProto()
    typed.CopyFrom(model)
    graph = typed.graph
    single = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}  # by its definition
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in single:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    inner = {value.name: f"{value.name}{SEPARATOR}half" for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    before = [_cast(value.name, inner[value.name], TensorProto.FLOAT16) for value in graph.input]
    after = [_cast(inner[value.name], value.name, TensorProto.FLOAT) for value in graph.output]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return typed


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}{SEPARATOR}cast", to=kind)


def _check(plan: Plan, typed: bool) -> None:
    if plan.runtime != "tensorrt":
        raise UsageError(f"the plan is for {plan.runtime}; a bundle measures with tensorrt: make a plan for it")
    for name in (planned.network for planned in plan.networks):
        if not _NAME.fullmatch(name) or name == REFERENCE:
            allowed = f"letters, digits, '_', '-' and '.', at most 64, and not {REFERENCE!r}"
            raise UsageError(f"the network {name[:80]!r} cannot be a file of a bundle; allowed: {allowed}")
    if typed and plan.precision == "int8":
        raise UnsupportedError("a strongly typed INT8 model needs quantisation nodes; write a plain bundle")


def _files(plan: Plan, typed: bool, progress: Progress | None) -> Iterator[tuple[str, bytes]]:
    """All files but the checksums, the models one by one."""
    space, half = plan_space(plan), typed and plan.precision == "fp16"
    yield "README.txt", _readme(plan).encode()
    yield "plan.json", _plan_bytes(plan)
    header = {"schema_version": SCHEMA_VERSION, "kind": KIND, "scaler": __version__, "strongly_typed": half}
    yield "bundle.json", (json.dumps(header, indent=1) + "\n").encode()
    for name in _PROGRAMS:
        yield name, (_AGENT / name).read_bytes()
    networks = [(REFERENCE, plan.reference), *((planned.network, planned.params) for planned in plan.networks)]
    for done, (name, params) in enumerate(networks):
        model = network_model(plan, space, params)
        yield f"models/{name}.onnx", (strongly_typed(model) if half else model).SerializeToString(deterministic=True)
        if progress:
            progress(done, len(plan.networks))


def _plan_bytes(plan: Plan) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        write_plan(plan, path)
        return path.read_bytes()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that says nothing of who wrote it and when."""
    member = tarfile.TarInfo(f"{FOLDER}/{name}")
    member.size = len(content)
    member.mode = 0o755 if name.startswith("measure.") else 0o644
    archive.addfile(member, io.BytesIO(content))


def _readme(plan: Plan) -> str:
    device = load_device(plan.device)
    return f"""\
{len(plan.networks)} networks to measure on {device.name}: {plan.precision}, batch {plan.batch}, mode {plan.power_mode}

On the device, in this folder:

1. Choose the power mode {plan.power_mode} (`sudo nvpmodel -m NUMBER`, the numbers are in /etc/nvpmodel.conf) and pin
   the clocks: `sudo jetson_clocks`. Close other programs; on a device with little memory the desktop too.
2. `./measure.sh` measures; `./measure.sh --help` lists the options. It needs trtexec, which JetPack brings, and
   Python 3.6 or newer; without Python it does a little less. Over a night and ssh: `nohup ./measure.sh > log.txt &`.
   It takes some minutes a network, most of it for building the engine. Run as root (`sudo ./measure.sh`) it also
   writes down the memory's clock.
3. Killed at any point, by Ctrl-C or by a power cut, it goes on where it was when run again. What failed is written
   down and left out; `./measure.sh --retry-failed` tries it again, `./measure.sh --pack` packs what there is so far.
4. Copy `results.tar.gz` and `results.tar.gz.sha256` back and read them: `scaler profile import results.tar.gz`.

Nothing is installed, and nothing is written outside this folder.
"""
