"""Arrays out of the files that weights are published in.

The kind of a file is told from its first bytes, never from its name: PyTorch's two formats, safetensors, HDF5 as Keras
writes it, and a wheel or another zip archive with one of these inside. Nothing in a file is run.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from scaler.errors import FileError, MissingExtraError, listed
from scaler.training.network.checkpoint import KIND as CHECKPOINT
from scaler.training.network.mapping import State
from scaler.training.pretrained import keras_h5

FileKind: TypeAlias = Literal["PyTorch", "safetensors", "HDF5"]

SUFFIXES: Mapping[FileKind, str] = {"PyTorch": ".pth", "safetensors": ".safetensors", "HDF5": ".h5"}
WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".h5", ".hdf5")
"""Of the members of an archive that are taken for weights."""

_EXPECTED = "expected PyTorch's .pth or .pt, .safetensors, Keras' .h5, or a wheel or zip with one of these"
_DAMAGED = "damaged or cut off"
_AGAIN = "fetch it again"
_ZIP, _HDF5, _PICKLE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80"
_WRAPPERS = ("state_dict", "state_dict_ema", "model_state_dict", "model", "model_ema", "ema", "module", "net", "params")
"""Under which training programs keep the arrays in their checkpoints."""
_PARALLEL = "module."
"""What torch's data parallelism puts before every name."""
_FOREIGN = re.compile(r"(?:GLOBAL|global:?|class) ['`<]?(?:class ')?([A-Za-z_][\w.]*)")


@dataclass(frozen=True, eq=False)
class Content:
    """The bytes of one file of weights, out of an archive where it lay in one."""

    path: Path
    """As the user named it: the file or the archive."""
    name: str
    """Of the file of weights itself."""
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def shown(self) -> str:
        """How messages call it."""
        return str(self.path) if self.path.name == self.name else f"{self.path}: {self.name}"

    def error(self, what: str, allowed: str = "", todo: str = "") -> FileError:
        """Compose an error about this file."""
        return FileError(self.shown, "", what, allowed, todo)


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """What a file holds, in torch's layouts: kernels `[out, in, height, width]`, dense weights `[out, in]`."""

    kind: FileKind
    state: State
    spec: Mapping[str, Any] | None = None
    """The network, where the file is a checkpoint of scaler's."""
    keras: keras_h5.KerasFacts | None = None
    """Where the file is Keras'."""


def read_content(path: Path | str, member: str = "") -> Content:
    """Read a file, or the one file of weights in an archive.

    Args:
        path: The file or archive.
        member: Which file of the archive, by its name or the end of its path; needed where it holds several.

    Raises:
        FileError: It is missing, unreadable or empty, or the archive holds no or several files of weights.
    """
    place = Path(path)
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        raise FileError(
            path, "", "no such file", todo="check the path; `scaler weights list` has what is imported"
        ) from None
    except IsADirectoryError:
        raise FileError(path, "", "is a folder", "expected a file", "name a file in it") from None
    except (OSError, ValueError, MemoryError) as error:
        reason = (getattr(error, "strerror", None) or str(error) or "it is too large").lower()
        raise FileError(path, "", f"cannot be read: {reason}", todo="check the path") from None
    content = Content(place, place.name, data)
    if not data:
        raise content.error("empty", _EXPECTED, _AGAIN)
    if data.startswith(_ZIP):
        return _member(content, member)
    if member:
        raise content.error("no archive", todo="leave --member out")
    return content


def _member(archive: Content, wanted: str) -> Content:
    """The file of weights in an archive; PyTorch's own files are zip archives too and stay as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive.data)) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
            if any(PurePosixPath(name).name == "data.pkl" for name in names):
                return archive
            found = [name for name in names if name.lower().endswith(WEIGHTS_SUFFIXES) and f"/{name}".endswith(wanted)]
            if len(found) != 1:
                all_found = found or [name for name in names if name.lower().endswith(WEIGHTS_SUFFIXES)]
                what = (
                    f"{len(found)} files of weights{f' called {wanted}' if wanted else ''} inside: {listed(all_found)}"
                )
                raise archive.error(
                    what, "expected one", "choose with --member" if len(all_found) > 1 else "name another file"
                )
            data = opened.read(found[0])
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error):
        raise archive.error(f"an archive that is {_DAMAGED}", todo=_AGAIN) from None
    inner = Content(archive.path, PurePosixPath(found[0]).name, data)
    if not data:
        raise inner.error("empty", _EXPECTED, _AGAIN)
    return inner


def read_arrays(content: Content) -> Arrays:
    """Read all arrays of a file of weights.

    Raises:
        FileError: It is none, damaged, holds Python objects beside arrays, or numbers that are not finite.
        MissingExtraError: The package that reads this kind is not installed.
    """
    data = content.data
    if data.startswith(_HDF5):
        arrays = _from_keras(content)
    elif data.startswith((_ZIP, _PICKLE)):
        arrays = _from_torch(content)
    elif _is_safetensors(data):
        arrays = Arrays("safetensors", _unwrapped(_from_safetensors(content), content))
    else:
        raise content.error("no weights", _EXPECTED, "name another file")
    for key, value in arrays.state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise content.error(f"{key!r} has numbers that are not finite", todo="the training that made it diverged")
    return arrays


def _from_keras(content: Content) -> Arrays:
    try:
        state, facts = keras_h5.read(content.data)
    except MissingExtraError:
        raise
    except keras_h5.LayoutError as error:
        raise content.error(str(error), todo="save it again with model.save_weights(...)") from None
    except Exception:  # HDF5 raises whatever its many layers raise
        raise content.error(f"an HDF5 file that is {_DAMAGED}", todo=_AGAIN) from None
    return Arrays("HDF5", state, keras=facts)


def _from_torch(content: Content) -> Arrays:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = torch.load(io.BytesIO(content.data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers of zip files and pickles raise
        text = str(error)
        if found := _FOREIGN.search(text):
            raise content.error(
                f"holds Python objects ({found[1]}), which are not loaded since that would run code",
                "expected arrays alone",
                "have its maker save model.state_dict()",
            ) from None
        raise content.error(f"a PyTorch file that is {_DAMAGED}", todo=_AGAIN) from None
    if isinstance(data, Mapping) and data.get("kind") == CHECKPOINT:
        spec, state = data.get("spec"), data.get("state")
        if not isinstance(spec, Mapping) or not isinstance(state, Mapping):
            raise content.error("a checkpoint without its network", todo="train again")
        return Arrays("PyTorch", _unwrapped(state, content), spec)
    return Arrays("PyTorch", _unwrapped(data, content))


def _is_safetensors(data: bytes) -> bool:
    """Whether the bytes are a header's length and a header in JSON, as safetensors begins."""
    return len(data) > 9 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] < 2**27


def _from_safetensors(content: Content) -> State:
    try:
        load = import_module("safetensors.torch").load
    except ImportError:
        raise MissingExtraError("reading .safetensors files", "safetensors", "train") from None
    try:
        loaded: State = load(content.data)
    except Exception:  # of the package's own and of torch's kinds
        raise content.error(f"a .safetensors file that is {_DAMAGED}", todo=_AGAIN) from None
    return loaded


def _unwrapped(data: object, content: Content) -> State:
    """The arrays by name, out of what training programs put around them."""
    while isinstance(data, Mapping):
        arrays = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
        inner = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if inner is None or len(arrays) > len(inner):
            break
        data = inner
    else:
        arrays = {}
    if not arrays:
        raise content.error("no arrays inside", "expected a state_dict: arrays by name", "name another file")
    if all(key.startswith(_PARALLEL) for key in arrays):
        return {key.removeprefix(_PARALLEL): value for key, value in arrays.items()}
    return arrays
