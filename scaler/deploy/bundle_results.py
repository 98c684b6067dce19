"""What a bundle for deployment brings back from a device; `agent/deploy.py` explains the layout of the results.

Nothing is trusted: archives may hold anything, files may be cut off or changed, and parts may be of another engine. A
damaged engine part is an error; damaged pictures are left out, with the reason.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from scaler.data.dataset import FloatArray
from scaler.deploy.bundle import ENGINE_PART, KIND, SCHEMA_VERSION
from scaler.errors import FileError
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, read_metadata
from scaler.files import Reader, read_json
from scaler.profiling.bundle_archive import strict_text, unpacked, verified
from scaler.profiling.bundle_conditions import doubts_of, loose_text, states_of
from scaler.profiling.bundle_power import energy_of
from scaler.profiling.measurement import BUSY, FrameEnergy, Measurement, MemoryMib, Round
from scaler.runtimes.engine_facts import EngineFacts, read_engine_facts
from scaler.runtimes.power_memory import parse_engine_memory
from scaler.runtimes.protocol import Conditions, LayerTime, RuntimeFailedError
from scaler.runtimes.tensorrt_dla import fallback_layers, parse_placement
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.trtexec_files import LayerInfo, join, parse_layer_info, parse_profile, parse_times
from scaler.runtimes.trtexec_text import error_messages
from scaler.space import Value

__all__ = ["Deployed", "Outputs", "PicturePlan", "deployed", "parse_outputs"]

_AGAIN = "copy the results from the device again"
_FACTS = "network.engine"
_CAPABILITY = re.compile(r"Compute Capability: (\d+\.\d+)")
_LARGEST_OUTPUT = 2**30
_NOT_JSON = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""How a C++ stream writes numbers that are none, and how Python reads them."""

Outputs = Mapping[str, FloatArray]
"""What the network gave for one picture, by the name of the output."""


class PicturePlan(NamedTuple):
    """A picture of the bundle."""

    name: str
    sha256: str
    """Of its file."""
    width: int
    height: int
    part: str
    """Of the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a device did with a network; its outputs are read while the results lie unpacked."""

    folder: Path
    facts: EngineFacts
    metadata: OnnxMetadata
    model: str
    """The ONNX file, relative to the folder of the `pareto.json` where one was named."""
    candidate: str
    """Of which search candidate the network is; blank where none was named."""
    wanted_device: str
    """Which the bundle was written for; blank where it was not said."""
    device: str | None
    """Id of the device that measured, by its own account."""
    capability: str
    """Compute capability of its GPU, as trtexec tells it; blank where it does not."""
    reference: Mapping[str, Value]
    """The reference network."""
    dataset: str
    split: str
    pictures: tuple[PicturePlan, ...]
    conditions: Conditions
    measurement: Measurement
    problems: list[str] = field(default_factory=list)
    """Why parts of the outputs are left out, known once they were read."""

    def outputs(self) -> Iterator[tuple[PicturePlan, Outputs]]:
        """What the engine gave for each picture, in the bundle's order; `problems` tells what is left out."""
        self.problems.clear()
        for part in dict.fromkeys(picture.part for picture in self.pictures):
            try:
                files = _part(self.folder, part)
                made_by = loose_text(files, "engine.txt").strip()
                if made_by != self.facts.engine_sha256:
                    raise FileError("engine.txt", "", "of another engine")
                mine = [(n, picture) for n, picture in enumerate(self.pictures) if picture.part == part]
                found = [(picture, _outputs(files, f"{n:05d}.json")) for n, picture in mine]
            except FileError as error:
                self.problems.append(f"{part}: {_said(error)}")
                continue
            yield from found


@contextmanager
def deployed(path: Path | str) -> Iterator[Deployed]:
    """The results of a bundle, unpacked for the time being.

    Args:
        path: `results.tar.gz`, what it unpacks to, or the device's `results` folder.

    Raises:
        FileError: It is no archive of results, or a dangerous one, or of another kind of bundle; or the engine part is
            missing, damaged, or says that the engine failed.
    """
    place = Path(path)
    with unpacked(place) as folder:
        try:
            found = _read(folder)
        except FileError as error:
            raise FileError(place, _where(error), error.what, error.allowed, error.todo or _AGAIN) from None
        yield found


def parse_outputs(text: str, file: str) -> Outputs:
    """The outputs in a file of `--exportOutput`: name, dimensions such as `1x375x4`, and values.

    Source: `exportJSONOutput` of samples/common/sampleReporting.cpp, TensorRT 8.0 to 11.1; 6 significant digits.

    Raises:
        FileError: The text is no such file, it is cut off, or dimensions and values disagree.
    """
    wrong = FileError(file, "", "no outputs of trtexec, or cut off", todo=_AGAIN)
    try:
        rows = json.loads(_as_json(text))
        found = {row["name"]: _tensor(row) for row in rows}
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise wrong from None
    if not found:
        raise wrong
    return found


def _as_json(text: str) -> str:
    if "nan" not in text and "inf" not in text:
        return text
    return " ".join(
        _NOT_JSON.get(word.rstrip(","), word.rstrip(",")) + "," * word.endswith(",") for word in text.split()
    )


def _tensor(row: Mapping[str, object]) -> FloatArray:
    shape = [int(part) for part in str(row["dimensions"]).split("x")]
    return np.array(row["values"], np.float32).reshape(shape)


# --- the engine part ---


def _read(folder: Path) -> Deployed:
    top = verified(folder)
    if missing := next((name for name in ("plan.json", "run.json") if name not in top), None):
        raise FileError(missing, "", "missing")
    plan = read_json(folder / "plan.json", schema_version=SCHEMA_VERSION)
    if plan.raw("kind", None) != KIND:
        what, todo = "results of another kind of bundle", "read those of a plan with scaler profile import"
        raise FileError("plan.json", "kind", what, "expected those of scaler export --bundle", todo)
    run = read_json(folder / "run.json", schema_version=1)
    run.choice("kind", ("scaler-device-run",))
    files = _part(folder, ENGINE_PART)
    facts = _engine(folder, files)
    metadata = read_metadata({KEY: facts.metadata}, "plan.json")
    states = states_of(files, loose_text(top, "system.txt"))
    conditions = states[-1].conditions(
        runtime="tensorrt",
        version=facts.tensorrt,
        precision=facts.precision,
        batch=facts.batch,
        gpu=facts.gpu,
        notes=loose_text(files, "notes.txt").splitlines(),
    )
    warm_up_ms = run.integer("warm_up", minimum=1)
    rounds = _rounds(files, run.integer("rounds", minimum=1), warm_up_ms)
    layers, doubt = _layers(files, rounds, warm_up_ms)
    result = read_json(folder / "networks" / ENGINE_PART / "result.json", schema_version=1)
    if result.string("model_sha256") != facts.model_sha256:
        raise FileError("result.json", "model_sha256", "the engine is of another network than was measured")
    measurement = Measurement(
        network=_text(plan, "candidate") or plan.string("name"),
        params=dict(metadata.parameters),
        conditions=conditions,
        rounds=rounds,
        layers=layers,
        seconds=result.number("seconds", minimum=0),
        tries=result.integer("tries", minimum=1),
        warnings=(*doubts_of(states), *doubt),
        energy=_energy(files, loose_text(top, "idle-power.txt"), rounds, warm_up_ms),
        memory_mib=MemoryMib(facts.memory.running, facts.memory.building),
    )
    return Deployed(
        folder=folder,
        facts=facts,
        metadata=metadata,
        model=plan.string("model"),
        candidate=_text(plan, "candidate"),
        wanted_device=_text(plan, "device"),
        device=states[-1].device,
        capability=capability[1] if (capability := _CAPABILITY.search(loose_text(files, "said.txt"))) else "",
        reference=_values(plan.table("reference")),
        dataset=_text(plan, "dataset"),
        split=_text(plan, "split"),
        pictures=_pictures(plan),
        conditions=conditions,
        measurement=measurement,
    )


def _part(folder: Path, part: str) -> Mapping[str, bytes]:
    """The files of a part that was done and went well."""
    place = folder / "networks" / part
    if not place.is_dir():
        raise FileError("", "", "not done on the device")
    files = verified(place)
    if "result.json" not in files:
        raise FileError("result.json", "", "missing")
    result = read_json(place / "result.json", schema_version=1)
    result.choice("network", (part,))
    if error := result.raw("error"):
        what = f"failed on the device: {_reason(str(error), loose_text(files, 'error.log'))}"
        raise FileError("", "", what, todo="mend that and run measure.sh --retry-failed there")
    return files


def _reason(error: str, log: str) -> str:
    """Why a part failed: what the device says, in the words of TensorRT where it left some."""
    stage, _, _ = error.partition(": trtexec ")
    messages = error_messages(log)
    return str(failure(messages, stage, RuntimeFailedError)) if messages else " ".join(error.split())[:300]


def _engine(folder: Path, files: Mapping[str, bytes]) -> EngineFacts:
    """What the engine is, with what trtexec said of its placement and memory."""
    if f"{_FACTS}.json" not in files:
        raise FileError(f"{_FACTS}.json", "", "missing")
    facts = read_engine_facts(folder / "networks" / ENGINE_PART / _FACTS)
    said = loose_text(files, "said.txt")
    memory, placement = parse_engine_memory(said), parse_placement(said)
    if placement is None or facts.dla is None:
        return replace(facts, memory=memory)
    dla, gpu = placement
    return replace(facts, memory=memory, dla_layers=dla, gpu_layers=gpu, fallback=fallback_layers(said))


def _rounds(files: Mapping[str, bytes], count: int, warm_up_ms: int) -> tuple[Round, ...]:
    """The rounds; neighbours share the times of the reference between them."""
    reference = [_times(files, f"times-reference-{number}.json", warm_up_ms) for number in range(count + 1)]
    network = [_times(files, f"times-network-{number}.json", warm_up_ms) for number in range(count)]
    return tuple(
        Round((*before, *after), times)
        for before, times, after in zip(reference[:-1], network, reference[1:], strict=True)
    )


def _times(files: Mapping[str, bytes], name: str, warm_up_ms: int) -> tuple[float, ...]:
    return tuple(parse_times(strict_text(files, name), name, warm_up_ms=warm_up_ms).tolist())


def _layers(
    files: Mapping[str, bytes], rounds: Sequence[Round], warm_up_ms: int
) -> tuple[tuple[LayerTime, ...], tuple[str, ...]]:
    """Layer times, by the names of TensorRT; none where the device could not profile. What is doubtful about them."""
    if "profile.json" not in files:
        return (), ("there are no layer times",)
    profile = parse_profile(strict_text(files, "profile.json"), "profile.json")
    infos: tuple[LayerInfo, ...] = ()
    if "layers.json" in files:
        with suppress(FileError):  # where TensorRT writes broken JSON, the names do without
            infos = parse_layer_info(strict_text(files, "layers.json"), "layers.json")
    usual = np.median([np.median(r.reference_ms) for r in rounds])
    after = np.median(_times(files, "times-reference-profile.json", warm_up_ms))
    busy = (f"the device was {100 * (after / usual - 1):.0f} % slower at the profile",) if after > BUSY * usual else ()
    return join(profile, infos), busy


def _energy(files: Mapping[str, bytes], idle: str, rounds: Sequence[Round], warm_up_ms: int) -> FrameEnergy | None:
    """Energy of a frame; None where the device tells no power."""
    if "power.txt" not in files or "times-power.json" not in files:
        return None
    usual = float(np.median(np.concatenate([r.network_ms for r in rounds])))
    return energy_of(loose_text(files, "power.txt"), idle, _times(files, "times-power.json", warm_up_ms), usual)


# --- the plan ---


def _pictures(plan: Reader) -> tuple[PicturePlan, ...]:
    known = {table.string("network") for table in plan.tables("networks", at_least=1)}
    found = []
    for table in plan.tables("pictures"):
        width, height = table.integer("width", minimum=1), table.integer("height", minimum=1)
        part = table.choice("part", tuple(known))
        found.append(PicturePlan(table.string("name"), table.string("sha256"), width, height, part))
    return tuple(found)


def _values(reader: Reader) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key in reader.keys:
        value = reader.raw(key)
        if not isinstance(value, get_args(Value)):
            raise reader.error(key, "found a table or list", "expected a text, a number, true or false")
        found[key] = value
    return found


# --- texts ---


def _outputs(files: Mapping[str, bytes], name: str) -> Outputs:
    packed = f"{name}.gz"
    if packed not in files:
        raise FileError(packed, "", "missing")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(files[packed])) as stream:
            content = stream.read(_LARGEST_OUTPUT + 1)
        if len(content) > _LARGEST_OUTPUT:
            raise FileError(packed, "", "larger than outputs can be")
        return parse_outputs(content.decode(), packed)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        raise FileError(packed, "", "damaged") from None


def _text(reader: Reader, key: str) -> str:
    """A text that may be empty."""
    return "" if reader.raw(key) == "" else reader.string(key)


def _where(error: FileError) -> str:
    return ": ".join(part for part in (Path(error.file).name, error.where) if part)


def _said(error: FileError) -> str:
    return ": ".join(part for part in (_where(error), error.what) if part)
