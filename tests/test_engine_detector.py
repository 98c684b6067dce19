"""An engine of the fake TensorRT, which ONNX Runtime computes, finds what the detector of its ONNX file finds."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_tensorrt import World, install

from scaler.cli import run
from scaler.data.images import write_image
from scaler.data.preprocessing import IMAGENET, Preprocessing, letterbox
from scaler.deploy.engine import EngineOrder, build_engine
from scaler.errors import FileError, MissingExtraError, UnsupportedError, UsageError
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.engine_detector import EngineDetector
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.raw_outputs import in_batches, only_selected, scattered
from scaler.export.decode import Decode
from scaler.export.weights import random_weights
from scaler.runtimes.protocol import RuntimeFailedError
from scaler.runtimes.tensorrt_engine import TensorRtEngine
from scaler.runtimes.tensorrt_inference import TensorRtInference
from scaler.training.network.loading import load_detector
from scaler.training.network.onnx_file import detector_model
from scaler.training.network.spec import NetworkSpec

SPEC = NetworkSpec(
    family="scaled-yolov4",
    parameters={"variant": "tiny", "width": 0.25, "resolution": 160},
    classes=("circle", "square", "triangle"),
    preprocessing=Preprocessing(size=160, fill=0, mean=IMAGENET[0], std=IMAGENET[1]),
    anchors=(((10, 14), (23, 27), (37, 58)), ((8, 8), (13, 15), (20, 40))),
)
VERSIONS = ["8.2.1", pytest.param("8.5.2", marks=pytest.mark.slow), "10.3.0"]
CONFIDENCE, IOU = 0.26, 0.5
EASY = Selection(confidence=CONFIDENCE, iou=IOU, most=20)


@cache
def model(nms: str = "none", batch: int | None = 1) -> onnx.ModelProto:
    decode = Decode(nms=nms, confidence=CONFIDENCE, iou=IOU, max_detections=20)
    return detector_model(SPEC, random_weights(3), selection=EASY, batch=batch, decode=decode)


def written(folder: Path, nms: str = "none", batch: int | None = 1) -> Path:
    path = folder / f"{nms}{batch}.onnx"
    path.write_bytes(model(nms, batch).SerializeToString())
    return path


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return computing(monkeypatch, "10.3.0")


def computing(monkeypatch: pytest.MonkeyPatch, version: str) -> World:
    world = install(monkeypatch, version)
    world.computes = True
    return world


def built(path: Path, **options: object) -> Path:
    return build_engine(EngineOrder(path, **options)).path


def pictures(count: int = 3) -> list[np.ndarray]:
    """Blotches, of different sizes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 120, (count, 2))
    return [
        np.kron(rng.integers(0, 256, (h // 10, w // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8) for h, w in sizes
    ]


def fitted(count: int = 3) -> np.ndarray:
    return np.stack([letterbox(picture, SPEC.preprocessing)[0] for picture in pictures(count)])


def same(ours: list[Detections], theirs: list[Detections]) -> bool:
    return all(
        np.array_equal(a.labels, b.labels)
        and np.allclose(a.corners, b.corners, atol=1e-3)
        and np.allclose(a.scores, b.scores, atol=1e-5)
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_gives_what_its_onnx_file_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str):
    world = computing(monkeypatch, version)
    path = written(tmp_path)
    engine, reference = load_detector(built(path)), OnnxDetector(path, "cpu")
    assert isinstance(engine, EngineDetector)
    assert (engine.classes, engine.preprocessing, engine.selection) == (SPEC.classes, SPEC.preprocessing, EASY)
    for ours, theirs in zip(engine.raw(fitted()), reference.raw(fitted()), strict=True):
        assert ours.dtype == np.float32
        assert np.array_equal(ours, theirs)
    found = engine.detect(pictures(), EASY)
    assert sum(map(len, found)) > 5
    assert same(found, reference.detect(pictures(), EASY))
    engine.close()
    assert world.allocated == {}


@pytest.mark.parametrize(
    ("version", "batch", "most"),
    [
        ("8.2.1", 2, 1),
        pytest.param("8.2.1", None, 2, marks=pytest.mark.slow),
        pytest.param("10.3.0", 2, 1, marks=pytest.mark.slow),
        ("10.3.0", None, 8),
    ],
)
def test_fewer_and_more_pictures_than_the_batch_go_through(monkeypatch, tmp_path: Path, version: str, batch, most):
    computing(monkeypatch, version)
    path = written(tmp_path, batch=batch)
    engine = EngineDetector(built(path, batch=most))
    assert (engine.facts.batch, engine.facts.open_batch) == (batch or most, batch is None)
    expected = OnnxDetector(path, "cpu").raw(fitted())
    for _ in range(2):
        assert all(np.allclose(*pair, atol=1e-4) for pair in zip(engine.raw(fitted()), expected, strict=True))


@pytest.mark.parametrize(
    ("version", "batch"),
    [
        pytest.param("8.2.1", 1, marks=pytest.mark.slow),
        ("8.5.2", None),
        pytest.param("10.3.0", 2, marks=pytest.mark.slow),
    ],
)
def test_efficient_nms_inside_finds_what_our_nms_finds(monkeypatch, tmp_path: Path, version: str, batch):
    computing(monkeypatch, version)
    engine = EngineDetector(built(written(tmp_path, "efficient", batch), batch=2 if batch is None else 1))
    boxes, scores = engine.raw(fitted())
    assert boxes.shape == (3, 20, 4)
    assert scores.shape == (3, 20, 3)
    found = engine.detect(pictures(), EASY)
    assert sum(map(len, found)) > 5
    assert same(found, OnnxDetector(written(tmp_path), "cpu").detect(pictures(), EASY))


def test_an_open_batch_computes_no_more_than_it_is_given(world: World, tmp_path: Path):
    inference = TensorRtInference(built(written(tmp_path, batch=None), batch=4))
    for count in (4, 1, 3):
        assert len(inference.run(np.zeros((count, 3, 160, 160), np.float32))["boxes"]) == count
    with pytest.raises(RuntimeFailedError, match=r"5 pictures at a time failed.*dims \(5, 3, 160, 160\)"):
        inference.run(np.zeros((5, 3, 160, 160), np.float32))


def test_onnx_nms_inside_finds_what_onnx_runtime_finds(world: World, tmp_path: Path):
    path = written(tmp_path, "onnx")
    engine, reference = EngineDetector(built(path)), OnnxDetector(path, "cpu")
    for ours, theirs in zip(engine.raw(fitted()), reference.raw(fitted()), strict=True):
        assert np.array_equal(ours, theirs)
    assert (engine.raw(fitted())[1] > 0).any()


def test_onnx_nms_inside_needs_an_output_of_open_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    computing(monkeypatch, "8.2.1")
    with pytest.raises(UnsupportedError, match=r"selected_indices.* which TensorRT 8\.2\.1 does not support"):
        built(written(tmp_path, "onnx"))


def test_sixteen_bits_are_read_as_such(world: World, tmp_path: Path):
    half = onnx.ModelProto()
    half.CopyFrom(model())
    for name in ("boxes", "scores"):
        next(n for n in half.graph.node if name in n.output).output[:] = [f"{name}32"]
        half.graph.node.add(op_type="Cast", input=[f"{name}32"], output=[name], name=f"{name}16").attribute.add(
            name="to", type=onnx.AttributeProto.INT, i=onnx.TensorProto.FLOAT16
        )
        next(v for v in half.graph.output if v.name == name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    (tmp_path / "half.onnx").write_bytes(half.SerializeToString())
    engine = EngineDetector(built(tmp_path / "half.onnx"))
    boxes, scores = engine.raw(fitted())
    expected = OnnxDetector(written(tmp_path), "cpu").raw(fitted())
    assert boxes.dtype == scores.dtype == np.float32
    assert np.allclose(boxes, expected[0], rtol=1e-3, atol=0.1)
    assert np.allclose(scores, expected[1], atol=1e-3)


def test_the_same_engine_is_timed(world: World, tmp_path: Path):
    path = built(written(tmp_path, batch=None), batch=2)
    runtime = TensorRtEngine(warm_up_ms=0, batch=2)
    with runtime.prepare(path) as session:
        assert (session.time(3) > 0).all()
        assert session.profile(1)
    assert len(world.builds) == 1, "it is not built again"


def test_the_commands_take_an_engine(world: World, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    path = built(written(tmp_path))
    for number, picture in enumerate(pictures()):
        write_image(tmp_path / f"photos{number}.png", picture)
    given = ["--confidence", "0.26", "--json"]
    assert run(["predict", str(path), "photos0.png", "--out", "drawn", *given]) == 0
    predicted = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predicted) == 1
    assert (tmp_path / "drawn" / "photos0.png").is_file()
    live = ["run", "--model", str(path), "--source", "photos0.png", "--picture-seconds", "0.01"]
    assert run([*live, "--headless", "--out", "demo.mp4", *given]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] >= 1


# --- what outputs mean ---


def test_of_onnx_nms_the_rows_say_picture_class_and_box():
    scores = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2)
    kept = only_selected(scores, np.array([[0, 1, 2], [1, 0, 0]]))
    assert np.flatnonzero(kept).tolist() == [5, 6]
    assert kept[0, 2, 1] == scores[0, 2, 1]
    assert kept[1, 0, 0] == scores[1, 0, 0]


def test_of_efficient_nms_what_lies_behind_the_count_means_nothing():
    scores, labels = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]], np.float32), np.array([[2, 0, 99], [1, -7, 99]])
    every = scattered(np.array([[2], [1]]), scores, labels, 3)
    assert every.shape == (2, 3, 3)
    assert np.argwhere(every).tolist() == [[0, 0, 2], [0, 1, 0], [1, 0, 1]]
    assert every[every > 0].tolist() == pytest.approx([0.9, 0.8, 0.6])


@pytest.mark.parametrize(
    ("most", "fixed", "sizes"), [(0, False, [5]), (2, False, [2, 2, 1]), (2, True, [2, 2, 2]), (8, True, [8])]
)
def test_pictures_go_through_in_batches(most: int, fixed: bool, sizes: list[int]):
    seen: list[int] = []

    def first_pixel(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(values))
        return values[:, :, 0, 0], values[:, :1, 0, 0]

    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    boxes, scores = in_batches(images, Preprocessing(size=4), first_pixel, most=most, fixed=fixed)
    assert seen == sizes
    assert np.allclose(boxes[:, 0] * 255, range(5))
    assert scores.shape == (5, 1)


# --- what it refuses ---


def test_engines_do_not_travel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World):
    path = built(written(tmp_path))
    computing(monkeypatch, "10.7.0")
    with pytest.raises(UnsupportedError, match=r"built by TensorRT 10\.3\.0, here is TensorRT 10\.7\.0") as refused:
        EngineDetector(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(UnsupportedError, match=r"built by TensorRT 10\.3\.0"):
        TensorRtEngine().prepare(path)
    computing(monkeypatch, "10.3.0").gpu = "NVIDIA Tegra X1"
    with pytest.raises(UnsupportedError, match="built for Orin, here is NVIDIA Tegra X1"):
        EngineDetector(path)


def test_an_engine_without_its_facts_or_of_others_is_refused(world: World, tmp_path: Path):
    path = built(written(tmp_path))
    facts = Path(f"{path}.json")
    text = facts.read_text(encoding="utf-8")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FileError, match=r"not the engine of which none1\.engine\.json tells"):
        EngineDetector(path)
    facts.write_text(text[:-20], encoding="utf-8")
    with pytest.raises(FileError, match=r"none1\.engine\.json.*expected JSON"):
        EngineDetector(path)
    facts.unlink()
    with pytest.raises(FileError, match=r"there is no none1\.engine\.json beside it"):
        EngineDetector(path)
    with pytest.raises(FileError, match="no such file"):
        EngineDetector(tmp_path / "absent.engine")


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "gpu"])
def test_an_engine_runs_on_the_first_gpu(world: World, tmp_path: Path, device: str):
    with pytest.raises(UsageError, match="an engine runs on the first GPU"):
        load_detector(tmp_path / "best.engine", device)
    with pytest.raises(UsageError, match="leave --half out"):
        load_detector(tmp_path / "best.engine", half=True)


def test_a_network_that_is_no_detector_of_ours_is_refused(world: World, tmp_path: Path):
    nameless = onnx.ModelProto()
    nameless.CopyFrom(model())
    del nameless.metadata_props[:]
    (tmp_path / "nameless.onnx").write_bytes(nameless.SerializeToString())
    with pytest.raises(FileError, match=r"metadata_props\.scaler: missing"):
        EngineDetector(built(tmp_path / "nameless.onnx"))
    odd = onnx.ModelProto()
    odd.CopyFrom(model())
    del odd.graph.output[1]
    (tmp_path / "odd.onnx").write_bytes(odd.SerializeToString())
    with pytest.raises(FileError, match="outputs: boxes; expected boxes and scores"):
        EngineDetector(built(tmp_path / "odd.onnx"))


def test_metadata_of_another_size_are_refused(world: World, tmp_path: Path):
    path = built(written(tmp_path))
    facts = Path(f"{path}.json")
    data = json.loads(facts.read_text(encoding="utf-8"))
    facts.write_text(json.dumps(data | {"picture": [3, 96, 96]}), encoding="utf-8")
    with pytest.raises(FileError, match="input: 3x96x96; its metadata say 3x160x160"):
        EngineDetector(path)


@pytest.mark.parametrize(("fails", "said"), [("enqueue", "CUDA failed"), ("cuda", "illegal memory access")])
def test_an_inference_that_fails_is_told_in_one_line(world: World, tmp_path: Path, fails: str, said: str):
    engine = EngineDetector(built(written(tmp_path)))
    world.fails = fails
    with pytest.raises(RuntimeFailedError, match=r"none1\.engine: running it failed") as failed:
        engine.raw(fitted())
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
    world.fails = ""
    assert engine.raw(fitted())[0].shape[0] == 3


def test_memory_that_does_not_suffice_is_told(world: World, tmp_path: Path):
    path = built(written(tmp_path))
    world.memory = 1000
    with pytest.raises(RuntimeFailedError, match=r"none1\.engine: loading the engine failed, out of memory"):
        EngineDetector(path)


def test_a_closed_engine_says_so(world: World, tmp_path: Path):
    engine = EngineDetector(built(written(tmp_path)))
    engine.close()
    engine.close()
    with pytest.raises(RuntimeFailedError, match="it was closed"):
        engine.raw(fitted(1))


def test_without_tensorrt_the_package_is_named(monkeypatch: pytest.MonkeyPatch, world: World, tmp_path: Path):
    path = built(written(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"scaler-nas\[tensorrt\]"):
        EngineDetector(path)
