"""Checkpoints: what comes back is what was written; whatever else is given is refused in one line."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaler.data.preprocessing import IMAGENET, Preprocessing
from scaler.errors import FileError
from scaler.evaluation.detections import Selection
from scaler.reader import Reader
from scaler.training.network.spec import NetworkSpec
from scaler.training.network.spec_data import read_spec, spec_data

torch = pytest.importorskip("torch", reason="torch is not installed")

from scaler.training.network.checkpoint import (  # noqa: E402
    Checkpoint,
    Facts,
    load_into,
    read_checkpoint,
    write_checkpoint,
)
from scaler.training.network.module import to_torch  # noqa: E402

SPEC = NetworkSpec(
    family="yolo-ret",
    parameters={"backbone": "mobilenetv2", "width": 0.35, "drop": 2, "rfcr": 5, "shortcut": True, "resolution": 160},
    classes=("circle", "square"),
    preprocessing=Preprocessing(size=160, fill=0, mean=IMAGENET[0], std=IMAGENET[1]),
    anchors=tuple(tuple((10.5 * scale, 8.0 + anchor) for anchor in range(3)) for scale in (4, 2, 1)),
    symmetric_padding=True,
)
FACTS = Facts(
    epoch=3,
    step=30,
    ap=0.5,
    ap50=None,
    recipe="quick",
    dataset="shapes",
    seed=0,
    scaler_version="0.1.0",
    created="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "last.pt"
    state = to_torch(SPEC.graph()).state_dict()
    selection = Selection(confidence=0.01, iou=0.5, most=50)
    progress = {"raw": {"a": torch.ones(2)}, "python": (3, (1, 2), None)}
    write_checkpoint(path, Checkpoint(spec=SPEC, state=state, facts=FACTS, selection=selection, progress=progress))
    return path


def test_what_was_written_comes_back(written: Path):
    found = read_checkpoint(written)
    assert (found.spec, found.facts, found.selection) == (SPEC, FACTS, Selection(confidence=0.01, iou=0.5, most=50))
    assert found.progress is not None and torch.equal(found.progress["raw"]["a"], torch.ones(2))
    module = to_torch(SPEC.graph(), seed=1)
    load_into(module, found, written)
    assert all(torch.equal(value, found.state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, anchors=None, symmetric_padding=False)])
def test_a_spec_is_plain_data_and_back(spec: NetworkSpec):
    import json

    assert read_spec(Reader(json.loads(json.dumps(spec_data(spec))), "run/config.json", "network")) == spec


def test_a_file_that_does_not_tell_its_selection_is_read(written: Path, tmp_path: Path):
    (tmp_path / "old.pt").write_bytes(changed(written, "selection"))
    assert read_checkpoint(tmp_path / "old.pt").selection is None


def test_nothing_in_a_file_is_run(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return Path.touch, (tmp_path / "run",)  # type: ignore[return-value]

    torch.save({"kind": "scaler-checkpoint", "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(FileError, match="no checkpoint, or cut off"):
        read_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "run").exists()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def changed(path: Path, *keys: str, value: object = None) -> bytes:
    data = torch.load(path, weights_only=True)
    table = data
    for key in keys[:-1]:
        table = table[key]
    if value is None:
        del table[keys[-1]]
    else:
        table[keys[-1]] = value
    stream = io.BytesIO()
    torch.save(data, stream)
    return stream.getvalue()


def saved(data: object) -> bytes:
    stream = io.BytesIO()
    torch.save(data, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: b"", "no checkpoint, or cut off; name a .pt file that scaler train wrote"),
        (lambda _: b"garbage" * 100, "no checkpoint, or cut off"),
        (lambda path: cut(path.read_bytes()), "no checkpoint, or cut off"),
        (lambda _: saved([1, 2]), "no checkpoint of scaler's"),
        (lambda _: saved({"model": {"weight": torch.ones(1)}}), "no checkpoint of scaler's"),
        (lambda path: changed(path, "schema_version", value=2), "schema_version: found 2; this scaler reads 1; update"),
        (lambda path: changed(path, "facts", "epoch"), "facts.epoch: missing"),
        (lambda path: changed(path, "facts", "ap", value="much"), "facts.ap: found 'much'"),
        (lambda path: changed(path, "selection", "most", value=0), "selection.most: found 0"),
        (lambda path: changed(path, "spec", "family", value="yolo-rat"), "did you mean 'yolo-ret'?"),
        (
            lambda path: changed(path, "spec", "parameters", "width", value=77),
            "spec: no network of scaler's: width = 77",
        ),
        (lambda path: changed(path, "spec", "parameters", "colour", value="red"), "spec: no network of scaler's"),
        (lambda path: changed(path, "spec", "preprocessing", "mean", value=[0.5]), "expected red, green and blue"),
        (lambda path: changed(path, "spec", "anchors", value=[[1, 2]]), "not lists of width and height"),
        (lambda path: changed(path, "spec", "anchors", value=[[[1, 2]]]), "no network of scaler's"),
        (lambda path: changed(path, "spec", "classes", value=[]), "spec.classes: found 0 of them"),
        (lambda path: changed(path, "state", value={"a": 1}), "state: not tensors by name"),
        (lambda path: changed(path, "progress", value=5), "progress: no table"),
    ],
)
def test_another_file_is_refused_in_one_line(
    written: Path, tmp_path: Path, content: Callable[[Path], bytes], message: str
):
    path = tmp_path / "other.pt"
    path.write_bytes(content(written))
    with pytest.raises(FileError) as refused:
        read_checkpoint(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path: Path):
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(FileError, match=r"no such file|is a folder"):
            read_checkpoint(path)


def test_weights_of_another_network_are_refused_by_name(written: Path):
    found = read_checkpoint(written)
    wider = to_torch(replace(SPEC, parameters={**SPEC.parameters, "width": 0.5}).graph())
    with pytest.raises(FileError, match=r"state\.\S+: has the shape \[.*\]; the network's has \[.*\]"):
        load_into(wider, found, written)
    fewer = {key: value for key, value in found.state.items() if not key.startswith("head")}
    with pytest.raises(FileError, match=r"state\.head\S+: is missing"):
        load_into(to_torch(SPEC.graph()), replace(found, state=fewer), written)


def test_an_interrupted_write_leaves_the_old_file(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "last.pt"
    path.write_bytes(written.read_bytes())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="no space left on device; what was there before"):
        write_checkpoint(path, read_checkpoint(written))
    assert path.read_bytes() == written.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
