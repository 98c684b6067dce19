"""What is known of a TensorRT engine: the JSON file beside it, `<name>.engine.json`.

An engine tells neither of what network it was made nor how its input is to be filled, and it runs on the GPU and with
the TensorRT that built it alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from scaler import __version__
from scaler.devices import Precision
from scaler.errors import FileError, UnsupportedError
from scaler.files import read_json, write_atomic
from scaler.reader import Reader
from scaler.runtimes.power_memory import EngineMemory

__all__ = [
    "SUFFIX",
    "EngineFacts",
    "check_here",
    "digest",
    "facts_path",
    "read_engine",
    "read_engine_facts",
    "write_engine_facts",
]

SUFFIX = ".engine"
SCHEMA_VERSION = 1
_TODO = "build it again with scaler export --format tensorrt"
_LARGEST = 1e9
_UNTOLD = EngineMemory()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """Of what an engine was made, how, for what, and what that took."""

    model: str
    """Name of the ONNX file."""
    model_sha256: str
    """Digest of the ONNX file, SHA-256 in hexadecimal."""
    engine_sha256: str
    """Digest of the engine file."""
    metadata: str
    """What the ONNX file says of itself (`scaler.evaluation.onnx_metadata`), as text; empty where it says nothing."""
    tensorrt: str
    """Version, `10.3.0`."""
    gpu: str
    """Name, as CUDA says it: `Orin`, `NVIDIA Tegra X1`."""
    precision: Precision
    input: str
    """Name of the input."""
    picture: tuple[int, ...]
    """Shape of one picture there: channels, height, width."""
    batch: int
    """Pictures at a time; the most of them where the batch is open."""
    open_batch: bool = False
    """Whether it takes fewer pictures too."""
    dla: int | None = None
    """DLA core that computes what it can; None: the GPU computes everything."""
    dla_layers: int | None = None
    """See `Placement`; None without a DLA, and where TensorRT did not tell."""
    gpu_layers: int | None = None
    fallback: tuple[str, ...] = ()
    """Layers of the network that were to run on the DLA, which does not take them."""
    memory: EngineMemory = _UNTOLD
    build_seconds: float
    """Of building alone, tactics tried out included."""
    built_by: str
    """`tensorrt` (in process) or `trtexec`."""
    scaler_version: str = __version__

    def as_text(self) -> str:
        """The JSON."""
        fields = asdict(self) | {"memory": self.memory._asdict()}
        return json.dumps({"schema_version": SCHEMA_VERSION} | fields, indent=2, allow_nan=False) + "\n"


def facts_path(engine: Path | str) -> Path:
    """The file beside an engine: `yolo.engine.json` of `yolo.engine`."""
    return Path(f"{engine}.json")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_engine_facts(engine: Path | str, facts: EngineFacts) -> None:
    """Write what is known of an engine beside it, as a whole.

    Raises:
        UserError: The file cannot be written.
    """
    write_atomic(facts_path(engine), facts.as_text())


def read_engine_facts(engine: Path | str) -> EngineFacts:
    """Read what is known of an engine.

    Args:
        engine: The engine; only the file beside it is read.

    Raises:
        FileError: There is no such file, or it is damaged.
    """
    path = facts_path(engine)
    if not path.is_file():
        what = f"there is no {path.name} beside it, so that classes, input and TensorRT version are not known"
        raise FileError(engine, "", what, todo=f"copy both files together, or {_TODO}")
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    memory = reader.table("memory")
    return EngineFacts(
        model=reader.string("model"),
        model_sha256=reader.string("model_sha256"),
        engine_sha256=reader.string("engine_sha256"),
        metadata=_text(reader, "metadata"),
        tensorrt=reader.string("tensorrt"),
        gpu=reader.string("gpu"),
        precision=reader.choice("precision", get_args(Precision)),
        input=reader.string("input"),
        picture=reader.integers("picture", minimum=1, at_least=1),
        batch=reader.integer("batch", minimum=1),
        open_batch=reader.boolean("open_batch", default=False),
        dla=_count(reader, "dla"),
        dla_layers=_count(reader, "dla_layers"),
        gpu_layers=_count(reader, "gpu_layers"),
        fallback=reader.strings("fallback", ()),
        memory=EngineMemory(*(_mib(memory, name) for name in EngineMemory._fields)),
        build_seconds=reader.number("build_seconds", minimum=0),
        built_by=reader.string("built_by"),
        scaler_version=reader.string("scaler_version"),
    )


def read_engine(path: Path | str) -> tuple[bytes, EngineFacts]:
    """Read an engine and what is known of it.

    Raises:
        FileError: One of the files is missing or damaged, or they do not belong together.
    """
    try:
        plan = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        what = "no such file" if missing else f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise FileError(path, "", what, todo="check the path") from None
    facts = read_engine_facts(path)
    if digest(plan) != facts.engine_sha256:
        raise FileError(
            path, "", f"is not the engine of which {facts_path(path).name} tells, or is damaged", todo=_TODO
        )
    return plan, facts


def check_here(engine: Path | str, facts: EngineFacts, tensorrt: str, gpu: str | None = None) -> None:
    """Refuse an engine that was built by another TensorRT or for another GPU.

    Args:
        engine: The file, for the message.
        facts: What is known of it.
        tensorrt: Version here.
        gpu: Name of the GPU here, where it is known.

    Raises:
        UnsupportedError: So it is.
    """
    if facts.tensorrt != tensorrt:
        was, here = f"by TensorRT {facts.tensorrt}", f"TensorRT {tensorrt}"
    elif gpu is not None and facts.gpu != gpu:
        was, here = f"for {facts.gpu}", gpu
    else:
        return
    raise UnsupportedError(f"{engine}: it was built {was}, here is {here}, and engines do not travel; {_TODO} here")


def _count(reader: Reader, key: str) -> int | None:
    return None if reader.raw(key) is None else reader.integer(key, minimum=0)


def _mib(reader: Reader, key: str) -> float | None:
    return None if reader.raw(key) is None else reader.number(key, minimum=0, maximum=_LARGEST)


def _text(reader: Reader, key: str) -> str:
    return "" if reader.raw(key) == "" else reader.string(key)
