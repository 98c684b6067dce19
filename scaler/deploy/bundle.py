"""A bundle for deployment: a trained network, pictures to judge it by, and what builds and measures its engine.

For a device that has trtexec but no scaler. `scaler/deploy/agent` and `scaler/profiling/agent` hold the programs that
go along; `scaler.deploy.bundle_results` reads what they bring back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from scaler import __version__
from scaler.devices import Precision
from scaler.errors import UsageError, UserError, nearest_name, unknown_name
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, read_metadata
from scaler.export.int8 import target_of
from scaler.latency.estimator import load_estimator
from scaler.latency.measured_model import MeasuredModel
from scaler.profiling.bundle import packing_weights, strongly_typed, write_archive
from scaler.profiling.networks import reference_graph
from scaler.report.recording import run_name
from scaler.runtimes.engine_facts import EngineFacts, digest
from scaler.runtimes.onnx_facts import load_model, read_facts
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, check_dla, parse_version
from scaler.search.candidates import candidates_of
from scaler.search.result import DeviceResult
from scaler.search.result_file import read_result
from scaler.space import Value

if TYPE_CHECKING:
    from scaler.deploy.bundle_pictures import FittedPicture

__all__ = ["KIND", "SCHEMA_VERSION", "STANDARD", "Summary", "check_file", "write_bundle"]

SCHEMA_VERSION = 1
KIND = "scaler-deployment"
ENGINE_PART = "engine"
PICTURES_A_PART = 20
"""What is lost at most when the device dies meanwhile."""
STANDARD: Mapping[str, Value] = {
    "family": "yolo-ret",
    "backbone": "mobilenetv2",
    "width": 0.35,
    "drop": 4,
    "neck": "none",
    "resolution": 224,
    "classes": 20,
}
"""The reference network where the device has no measured table that names its own: it tells drift, not the level."""

_HERE = Path(__file__).parent / "agent"
_SHARED = Path(__file__).parent.parent / "profiling" / "agent"
_PROGRAMS = (
    (_HERE, ("measure.sh", "deploy.py")),
    (_SHARED, ("measure.py", "bench.py", "device.py")),
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_BYTES_A_NUMBER = 5
"""Of trtexec's JSON, compressed: 6 digits and a separator, most scores alike."""
_OPSET = 13


class Summary(NamedTuple):
    """What was written."""

    path: Path
    pictures: int
    """0 where there are none: the engine is timed, but not judged."""
    precision: str
    """Of the engine."""
    candidate: str
    """Of which search candidate the file is; blank where none was named."""
    packed_bytes: int
    unpacked_bytes: int
    """What the device's disk must hold, before engine and results."""
    result_bytes: int
    """What the outputs of the pictures come to, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that a bundle says and holds."""

    name: str
    content: bytes
    metadata: OnnxMetadata
    facts: EngineFacts
    typed: bool
    outputs: int
    """Numbers that the network gives a picture."""
    reference: Mapping[str, Value]
    pictures: tuple[FittedPicture, ...]
    dataset: str
    split: str
    model: str
    """The file, relative to the folder of the `pareto.json` where one was named."""
    candidate: str
    found: DeviceResult | None


def write_bundle(
    model: Path,
    out: Path,
    *,
    data: Path | None = None,
    pictures: int = 200,
    result: Path | None = None,
    candidate: str | None = None,
    precision: str = "fp16",
    dla: int | None = None,
    tensorrt: str | None = None,
) -> Summary:
    """Write a bundle, whole or not at all; equal inputs give equal bytes.

    Args:
        model: An ONNX file of scaler's with a batch of 1.
        out: The archive, `.tar.gz`.
        data: A `data.toml`, of whose val split the engine is judged on the device; only timed without.
        pictures: How many of them, spread evenly over the split.
        result: The `pareto.json` that the network is from; says for which device it is.
        candidate: Its id there.
        precision: Of the engine. A file with quantisation nodes gives one of INT8 whatever this says.
        dla: DLA core that is to compute what it can, the GPU the rest.
        tensorrt: Version on the device, where it is known: from 11 on the file's own precision is the engine's.

    Raises:
        UsageError: An argument that is not allowed, or does not go with another.
        FileError: A file that is missing, damaged or none of scaler's.
        UserError: No picture can be read, or the archive cannot be written.
    """
    _check_words(out, pictures, precision, candidate, result, dla)
    metadata, facts, typed, outputs = _facts(model, cast("Precision", precision), dla, tensorrt)
    found = None if result is None else _device_of(result, candidate)
    fitted, dataset, split = _pictures(data, pictures, metadata)
    job = _Job(
        name=_UNSAFE.sub("-", model.stem)[:60] or "network",
        content=model.read_bytes(),
        metadata=metadata,
        facts=facts,
        typed=typed,
        outputs=outputs,
        reference=_reference(found, facts.precision),
        pictures=fitted,
        dataset=dataset,
        split=split,
        model=model.name if result is None else run_name(result, model),
        candidate=candidate or "",
        found=found,
    )
    packed, unpacked = write_archive(out, _files(job))
    return Summary(out, len(fitted), facts.precision, job.candidate, packed, unpacked, _result_bytes(job))


def check_file(model: Path) -> OnnxMetadata:
    """What a file says of itself, where it can be deployed by a bundle.

    Raises:
        FileError: There is no such file, or it is none of scaler's detectors.
        UsageError: Its batch is not 1, its 8 bits are for another runtime, or trtexec cannot export what its NMS gives.
        MissingExtraError: The package `onnx` is not installed.
    """
    loaded = load_model(model, "writing bundles")
    properties = {entry.key: entry.value for entry in loaded.metadata_props}
    metadata = read_metadata(properties, model)
    if target_of(properties) == "onnxruntime":
        raise UsageError(
            f"{model}: its 8 bits are written for ONNX Runtime, which TensorRT refuses; export the checkpoint with "
            "--precision int8 --target tensorrt"
        )
    batch = loaded.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if batch != 1:
        what = f"a batch of {batch}" if batch else "an open batch"
        raise UsageError(f"{model}: it has {what}, a bundle measures one picture at a time; export it with --batch 1")
    if metadata.nms is not None and metadata.nms.kind == "onnx":
        raise UsageError(
            f"{model}: how many boxes its NMS leaves is not known before, and trtexec cannot export that; "
            "export it with --nms none or --nms efficient-nms"
        )
    return metadata


def _check_words(
    out: Path, pictures: int, precision: str, candidate: str | None, result: Path | None, dla: int | None
) -> None:
    if precision not in get_args(Precision):
        raise UsageError(unknown_name("precision", precision, get_args(Precision)))
    if pictures < 1:
        raise UsageError(f"{pictures} pictures: give 1 or more, or leave the data out to measure the time alone")
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"{out}: a bundle is called .tar.gz")
    if candidate is not None and result is None:
        raise UsageError(f"the candidate {candidate} is of a search: name its pareto.json too")
    if dla is not None and dla < 0:
        raise UsageError(f"DLA core {dla}: they are 0 and 1")


def _facts(
    model: Path, wanted: Precision, dla: int | None, tensorrt: str | None
) -> tuple[OnnxMetadata, EngineFacts, bool, int]:
    """What the file and the engine of it are: metadata, facts with gaps for the device, typed, outputs."""
    metadata = check_file(model)
    loaded = load_model(model, "writing bundles")
    int8 = read_facts(model, "writing bundles").quantised
    precision: Precision = "int8" if int8 else wanted
    if precision == "int8" and not int8:
        raise UsageError(
            f"{model}: it has no quantisation nodes, and an INT8 engine of it would find nothing; "
            "write one with scaler export --precision int8"
        )
    version = None if tensorrt is None else parse_version(tensorrt)
    newest = version is not None and version >= STRONGLY_TYPED
    own = "int8" if int8 else metadata.precision
    check_dla(dla, precision, version, open_batch=False)  # `check_file` refuses an open batch
    if newest and precision in ("fp16", "int8") and own != precision:
        raise UsageError(
            f"{model}: TensorRT {version} takes the precision from the file, which is {own}; "
            f"export it with --precision {precision}"
        )
    size = metadata.preprocessing.size
    outputs = sum(_count(value) for value in loaded.graph.output)
    facts = EngineFacts(
        model=model.name,
        model_sha256=digest(model.read_bytes()),
        engine_sha256="",
        metadata=next(entry.value for entry in loaded.metadata_props if entry.key == KEY),
        tensorrt="",
        gpu="",
        precision=precision,
        input=loaded.graph.input[0].name,
        picture=(3, size, size),
        batch=1,
        dla=dla,
        build_seconds=0.0,
        built_by="trtexec",
    )
    return metadata, facts, newest and precision in ("fp16", "int8"), outputs


def _count(value: Any) -> int:
    """Numbers of an output."""
    total = 1
    for dimension in value.type.tensor_type.shape.dim:
        total *= max(1, dimension.dim_value)
    return total


def _device_of(result: Path, candidate: str | None) -> DeviceResult | None:
    """The device of a search that has the candidate, the first of several; without a candidate the only device."""
    devices = read_result(result).devices
    if candidate is None:
        return devices[0] if len(devices) == 1 else None
    known = [one.id for device in devices for one in candidates_of(device)]
    for device in devices:
        if candidate in {one.id for one in candidates_of(device)}:
            return device
    hint = nearest_name(candidate, known)
    raise UsageError(f"{result}: no candidate {candidate!r}" + (f"; did you mean {hint}?" if hint else ""))


def _reference(found: DeviceResult | None, precision: str) -> Mapping[str, Value]:
    """The reference network of the device's measured table, beside which its time counts; else a standard one."""
    if found is not None:
        with suppress(UserError):  # a device without this precision has no table of it
            info = load_estimator(found.device, precision=precision, power_mode=found.power_mode).info
            if info is not None and isinstance(info.model, MeasuredModel) and info.model.reference:
                return dict(info.model.reference)
    return STANDARD


def _pictures(data: Path | None, most: int, metadata: OnnxMetadata) -> tuple[tuple[FittedPicture, ...], str, str]:
    """The fitted pictures, data set and split; none without data."""
    if data is None:
        return (), "", ""
    from scaler.data.data_file import read_splits  # noqa: PLC0415
    from scaler.deploy.bundle_pictures import fitted_pictures  # noqa: PLC0415
    from scaler.evaluation.evaluate import label_map  # noqa: PLC0415

    dataset = read_splits(data, ["val"]).splits["val"]
    label_map(metadata.classes, dataset.classes)  # says where they are others
    return fitted_pictures(dataset, metadata.preprocessing, most), dataset.name, dataset.split


def _files(job: _Job) -> Iterator[tuple[str, bytes]]:
    """All files but the checksums."""
    yield "README.txt", _readme(job).encode()
    yield "plan.json", (json.dumps(_plan(job), indent=1, allow_nan=False) + "\n").encode()
    header = {"schema_version": SCHEMA_VERSION, "kind": KIND, "scaler": __version__, "strongly_typed": job.typed}
    yield "bundle.json", (json.dumps(header, indent=1) + "\n").encode()
    for folder, names in _PROGRAMS:
        for name in names:
            yield name, (folder / name).read_bytes()
    yield "models/network.onnx", job.content
    yield "models/reference.onnx", _reference_model(job)
    if job.pictures:
        from scaler.deploy.bundle_pictures import input_tables  # noqa: PLC0415

        yield "pictures/table.f32", input_tables(job.metadata.preprocessing)
        inputs = (f"{picture.input_sha256}  {number:05d}\n" for number, picture in enumerate(job.pictures))
        yield "pictures/inputs.txt", "".join(inputs).encode()
    for number, picture in enumerate(job.pictures):
        yield f"pictures/{number:05d}.u8", picture.planes


def _reference_model(job: _Job) -> bytes:
    from scaler.export.onnx_model import to_onnx  # noqa: PLC0415

    model = to_onnx(reference_graph(job.reference), weights=packing_weights, batch=1, opset=_OPSET)
    typed = job.typed and job.facts.precision == "fp16"
    content: bytes = (strongly_typed(model) if typed else model).SerializeToString(deterministic=True)
    return content


def _plan(job: _Job) -> dict[str, Any]:
    """What the device is told, and tells again at home."""
    facts = json.loads(replace(job.facts, engine_sha256="", tensorrt="").as_text())
    parts = [f"pictures-{number // PICTURES_A_PART:03d}" for number in range(len(job.pictures))]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "scaler": __version__,
        "name": job.name,
        "model": job.model,
        "candidate": job.candidate,
        "device": job.found.device if job.found else "",
        "power_mode": job.found.power_mode if job.found else "",
        "precision": job.facts.precision,
        "dla": job.facts.dla,
        "engine": facts,
        "reference": dict(job.reference),
        "dataset": job.dataset,
        "split": job.split,
        "result_bytes": _result_bytes(job),
        "networks": [{"network": part} for part in (ENGINE_PART, *dict.fromkeys(parts))],
        "pictures": [
            {"name": p.name, "sha256": p.sha256, "width": p.width, "height": p.height, "part": part}
            for p, part in zip(job.pictures, parts, strict=True)
        ],
    }


def _result_bytes(job: _Job) -> int:
    return _BYTES_A_NUMBER * job.outputs * len(job.pictures)


def _readme(job: _Job) -> str:
    where = f" on {job.found.title}, mode {job.found.power_mode}" if job.found else ""
    pictures = f", judged by {len(job.pictures)} pictures of {job.dataset}" if job.pictures else ""
    dla = "" if job.facts.dla is None else f", on DLA core {job.facts.dla} as far as it goes"
    return f"""\
{job.facts.model}: its TensorRT engine, {job.facts.precision}{dla}, batch 1{where}{pictures}

On the device, in this folder:

1. Choose the power mode{f" {job.found.power_mode}" if job.found else ""} (`sudo nvpmodel -m NUMBER`, the numbers are
   in /etc/nvpmodel.conf) and pin the clocks: `sudo jetson_clocks`. Close other programs.
2. `./measure.sh` builds the engine, measures its time, its layers and its power, and runs it on the pictures;
   `./measure.sh --help` lists the options. It needs trtexec, which JetPack brings, and Python 3.6 or newer; without
   Python it measures neither layers nor power. Over ssh: `nohup ./measure.sh > log.txt &`. Every picture is a
   process of trtexec's own, which loads the engine first: reckon with some seconds each.
3. Killed at any point, by Ctrl-C or by a power cut, it goes on where it was when run again.
4. The engine stays in the folder `engine`, with what is to be known of it beside it: engines do not travel.
5. Copy `results.tar.gz` and `results.tar.gz.sha256` back and read them: `scaler import results.tar.gz`.

Nothing is installed, and nothing is written outside this folder.
"""
