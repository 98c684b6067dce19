"""Small untrained networks: the same detections by torch and by ONNX Runtime, and what files must say of themselves."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from scaler.data.preprocessing import IMAGENET, Preprocessing, letterbox, normalised
from scaler.errors import FileError, UnsupportedError, UsageError, UserError
from scaler.evaluation.detections import Selection
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, ScaleAnchors, read_metadata
from scaler.training.network.checkpoint import Checkpoint, Facts, write_checkpoint
from scaler.training.network.detector import TorchDetector, checked_device
from scaler.training.network.loading import load_detector
from scaler.training.network.module import to_torch, weights_of
from scaler.training.network.onnx_file import detector_model, write_onnx
from scaler.training.network.spec import NetworkSpec

CLASSES = ("circle", "square", "triangle")
SPECS = {
    "yolo-ret": NetworkSpec(
        family="yolo-ret",
        parameters={"backbone": "mobilenetv2", "width": 0.35, "resolution": 160, "drop": 2},
        classes=CLASSES,
        preprocessing=Preprocessing(size=160, fill=0, mean=IMAGENET[0], std=IMAGENET[1]),
    ),
    "yolov4-tiny": NetworkSpec(
        family="scaled-yolov4",
        parameters={"variant": "tiny", "width": 0.25, "resolution": 160},
        classes=CLASSES,
        preprocessing=Preprocessing(size=160),
        anchors=(((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 90), (120, 140))),
    ),
    "retinanet": NetworkSpec(
        family="retinanet",
        parameters={"backbone": "vovnet2-19-slim-dw", "width": 16, "towers": 1, "resolution": 128},
        classes=CLASSES,
        preprocessing=Preprocessing(size=128),
    ),
}
TINY = SPECS["yolov4-tiny"]


@cache
def network(family: str = "yolov4-tiny") -> torch.nn.Module:
    """Untrained, but with normalisations and sizes of boxes as after some training."""
    spec = SPECS[family]
    module = to_torch(spec.graph(), seed=1)
    generator = torch.Generator().manual_seed(1)
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.7, 1.4, generator=generator)
            part.weight.data.uniform_(0.7, 1.3, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(part, torch.nn.Conv2d) and name.startswith("head"):
            part.register_forward_hook(calm)
    seen = normalised(np.stack([fitted(image, spec) for image in pictures(3)]), spec.preprocessing)
    with torch.no_grad():
        module.eval()(torch.from_numpy(seen))
    for part in module.modules():
        part._forward_hooks.clear()
    return module.train()


def calm(conv: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
    """Scale a convolution so that what it makes has a deviation of 0.3."""
    scale = 0.3 / output.std()
    conv.weight.data *= scale
    return output * scale


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Of different sizes: blotches, so that places differ."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(70, 300, (count, 2))
    return [
        np.kron(rng.integers(0, 256, (h // 10, w // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8) for h, w in sizes
    ]


def fitted(image: np.ndarray, spec: NetworkSpec) -> np.ndarray:
    return letterbox(image, spec.preprocessing)[0]


def checkpoint(spec: NetworkSpec, module: torch.nn.Module) -> Checkpoint:
    facts = Facts(
        epoch=1, step=1, ap=None, ap50=None, recipe="quick", dataset="shapes", seed=0,
        scaler_version="0", created="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return Checkpoint(spec=spec, state=module.state_dict(), facts=facts)


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    write_onnx(TINY, weights_of(network()), path)
    return path


@pytest.mark.parametrize("family", SPECS)
def test_torch_and_onnx_runtime_find_the_same_in_the_same_picture(family: str, tmp_path):
    spec, module = SPECS[family], network(family)
    write_onnx(spec, weights_of(module), tmp_path / "best.onnx")
    write_checkpoint(tmp_path / "best.pt", checkpoint(spec, module))
    by_torch, by_onnx = load_detector(tmp_path / "best.pt", "cpu"), load_detector(tmp_path / "best.onnx", "cpu")
    assert isinstance(by_torch, TorchDetector)
    assert isinstance(by_onnx, OnnxDetector)
    assert by_torch.classes == by_onnx.classes == CLASSES
    assert by_torch.preprocessing == by_onnx.preprocessing == spec.preprocessing
    images = pictures(3)
    ours, theirs = (one.raw(np.stack([fitted(image, spec) for image in images])) for one in (by_torch, by_onnx))
    assert ours[0].dtype == theirs[0].dtype == ours[1].dtype == theirs[1].dtype == np.float32
    np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-3, atol=1e-3 * spec.preprocessing.size)
    np.testing.assert_allclose(theirs[1], ours[1], atol=1e-4)
    selection = Selection(confidence=float(np.quantile(ours[1], 0.9)), iou=0.5, most=20)
    for one, other, image in zip(
        by_torch.detect(images, selection), by_onnx.detect(images, selection), images, strict=True
    ):
        assert len(one) == len(other) > 3
        same = one.labels[:, np.newaxis] == other.labels  # those of almost the same score may change places
        same &= np.isclose(one.scores[:, np.newaxis], other.scores, atol=1e-4)
        same &= np.isclose(one.corners[:, np.newaxis], other.corners, atol=1e-3 * max(image.shape)).all(axis=2)
        assert same.any(axis=0).all()
        assert same.any(axis=1).all()
        assert (one.corners >= 0).all()
        assert (one.corners <= [image.shape[1], image.shape[0]] * 2).all()


def test_a_pictures_detections_do_not_depend_on_its_neighbours():
    detector = TorchDetector(TINY, network())
    one, *others = (fitted(image, TINY) for image in pictures(7))
    together, apart = np.stack([one, *others[:3]]), np.stack([others[3], others[4], one, others[5]])
    for first, second, alone in zip(
        detector.raw(together), detector.raw(apart), detector.raw(one[np.newaxis]), strict=True
    ):
        np.testing.assert_array_equal(first[0], second[2])
        np.testing.assert_allclose(first[0], alone[0], rtol=1e-4, atol=1e-3)  # rounding


def test_the_detector_leaves_the_trained_module_alone_and_folding_changes_no_number():
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    images = np.stack([fitted(image, TINY) for image in pictures(2)])
    folded, plain = (TorchDetector(TINY, module, fuse=fuse).raw(images) for fuse in (True, False))
    np.testing.assert_allclose(folded[0], plain[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(folded[1], plain[1], atol=1e-5)
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_file_for_several_pictures_at_a_time_takes_any_number(tmp_path):
    module = network()
    write_onnx(TINY, weights_of(module), tmp_path / "three.onnx", batch=3)
    images = np.stack([fitted(image, TINY) for image in pictures(5)])
    three, torch_ = OnnxDetector(tmp_path / "three.onnx", "cpu").raw(images), TorchDetector(TINY, module).raw(images)
    assert three[0].shape == torch_[0].shape
    np.testing.assert_allclose(three[0], torch_[0], rtol=1e-3, atol=1e-3)


def test_the_file_says_of_itself_what_it_needs(tiny_onnx):
    model = onnx.load(tiny_onnx)
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    data = json.loads(entry.value)
    assert entry.key == "scaler"
    assert data["classes"] == list(CLASSES)
    assert "selection" not in data
    assert data["preprocessing"] == {"size": 160, "fill": 114, "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert (data["precision"], data["nms"]) == ("fp32", {"kind": "none"})
    assert TINY.anchors is not None
    anchors = tuple(ScaleAnchors(stride, sizes) for stride, sizes in zip((32, 16), TINY.anchors, strict=True))
    assert OnnxDetector(tiny_onnx, "cpu").metadata == OnnxMetadata(
        classes=CLASSES,
        preprocessing=TINY.preprocessing,
        family="scaled-yolov4",
        parameters=TINY.parameters,
        anchors=anchors,
    )


def test_the_file_says_which_boxes_counted(tmp_path):
    selection = Selection(confidence=0.02, iou=0.4, most=7)
    write_onnx(TINY, weights_of(network()), tmp_path / "best.onnx", selection=selection)
    assert load_detector(tmp_path / "best.onnx", "cpu").selection == selection


def test_onnx_files_run_without_torch(tiny_onnx):
    code = (
        "import sys, numpy as np\n"
        "from scaler.training.network.loading import load_detector\n"
        "from scaler.evaluation.detections import Selection\n"
        f"found = load_detector({str(tiny_onnx)!r}).detect([np.zeros((90, 120, 3), np.uint8)], Selection())\n"
        "assert len(found) == 1 and 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_picture_is_no_detection(tiny_onnx):
    assert OnnxDetector(tiny_onnx, "cpu").detect([], Selection()) == []


# ------------------------------------------------------------------------------------------ the user's mistakes


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", ["", ".plan", ".pth"])
def test_other_suffixes_are_refused(suffix: str):
    with pytest.raises(UsageError) as error:
        load_detector(f"model{suffix}")
    assert "name the best.pt or best.onnx" in one_line(error)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_missing_and_damaged_files_are_told(suffix: str, tmp_path):
    with pytest.raises(FileError, match="no such file"):
        load_detector(tmp_path / f"gone{suffix}")
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(FileError) as error:
        load_detector(broken)
    assert str(broken) in one_line(error)


def test_a_file_of_somebody_else_is_told_what_it_lacks(tmp_path):
    model = detector_model(TINY, weights_of(network()))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(FileError) as error:
        OnnxDetector(tmp_path / "foreign.onnx")
    assert "metadata_props.scaler: missing, so that classes, input size and normalisation are not known" in one_line(
        error
    )


def changed(**parts: object) -> dict[str, str]:
    metadata = OnnxMetadata(classes=CLASSES, preprocessing=TINY.preprocessing, family="f", parameters={})
    return {KEY: json.dumps(json.loads(metadata.as_text()) | parts)}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({KEY: "{"}, "no JSON object"),
        ({KEY: "[1]"}, "no JSON object"),
        (changed(schema_version=2), "schema_version: found 2; this scaler reads 1; update scaler"),
        (changed(classes=[]), "metadata_props.scaler.classes"),
        (changed(preprocessing={"size": 0, "fill": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}), "preprocessing.size"),
        (
            changed(preprocessing={"size": 9, "fill": 0, "mean": [0, 0], "std": [1, 1, 1]}),
            "preprocessing.mean: found 2",
        ),
        (changed(preprocessing={"size": 9, "fill": 0, "mean": [0, 0, 0], "std": [1, 0, 1]}), "preprocessing.std[1]"),
        (changed(selection={"confidence": 0.1, "iou": 2, "most": 9}), "scaler.selection.iou: found 2"),
        (changed(parameters={"width": [1]}), "parameters.width: found a table or list"),
        (changed(precision="fp8"), "scaler.precision: found 'fp8'"),
        (changed(nms={"kind": "soft"}), "scaler.nms.kind: found 'soft'"),
        (changed(nms={"kind": "onnx", "confidence": 2, "iou": 0.5, "max_detections": 9}), "nms.confidence: found 2"),
        (changed(anchors=[{"stride": 8, "sizes": [[1, 0]]}]), "anchors[0].sizes: no list of widths and heights"),
        (changed(anchors=[{"stride": 8, "sizes": 3}]), "anchors[0].sizes: no list of widths and heights"),
    ],
)
def test_wrong_metadata_are_told_with_their_place(properties: dict[str, str], expected: str):
    with pytest.raises(FileError) as error:
        read_metadata(properties, "best.onnx")
    assert expected in one_line(error)


def test_metadata_that_do_not_fit_the_network_are_told(tmp_path):
    model = detector_model(TINY, weights_of(network()))
    path = tmp_path / "changed.onnx"
    helper.set_model_props(model, changed(classes=["a", "b"]))
    onnx.save(model, path)
    with pytest.raises(FileError, match="scores of 3 classes, but its metadata name 2"):
        OnnxDetector(path)
    helper.set_model_props(model, changed(preprocessing={"size": 9, "fill": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}))
    onnx.save(model, path)
    with pytest.raises(FileError, match=r"expected one of \[batch, 3, 9, 9\]"):
        OnnxDetector(path)


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "mps", "cpu:x"])
def test_devices_that_are_not_there_are_refused(device: str, tiny_onnx):
    with pytest.raises(UnsupportedError) as error:
        OnnxDetector(tiny_onnx, device)
    assert f"--device {device}" in one_line(error)
    with pytest.raises(UnsupportedError) as error:
        checked_device(device)
    assert f"--device {device}" in one_line(error)


def test_half_precision_is_for_torch_on_a_gpu(tiny_onnx):
    with pytest.raises(UsageError, match="leave --half out"):
        load_detector(tiny_onnx, half=True)
    with pytest.raises(UnsupportedError, match="needs a GPU"):
        TorchDetector(TINY, network(), half=True)


@pytest.mark.parametrize("fit", [3, 1])
def test_a_full_memory_halves_the_pictures_at_a_time(fit: int, monkeypatch: pytest.MonkeyPatch):
    detector, small = TorchDetector(TINY, network()), TorchDetector(TINY, network(), most=1)
    network_, tried = detector._network, []

    def narrow(values: torch.Tensor) -> object:
        tried.append(len(values))
        if len(values) > fit:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return network_(values)

    monkeypatch.setattr(detector, "_network", narrow)
    images = np.stack([fitted(image, TINY) for image in pictures(7)])
    found = [detector.raw(images) for _ in range(2)]
    assert tried == {3: [7, 3, 3, 1, 3, 3, 1], 1: [7, 3, 1, *[1] * 13]}[fit]  # what fitted is remembered
    for boxes, scores in found:
        np.testing.assert_allclose(boxes, small.raw(images)[0], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(scores, small.raw(images)[1], atol=1e-5)


def test_too_little_memory_for_one_picture_is_one_line(monkeypatch: pytest.MonkeyPatch):
    detector = TorchDetector(TINY, network())

    def full(_: torch.Tensor) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(detector, "_network", full)
    with pytest.raises(UserError) as error:
        detector.raw(np.zeros((4, 160, 160, 3), np.uint8))
    assert one_line(error) == (
        "cpu has too little memory for one picture of 160 px; run a smaller network or resolution, or another device"
    )


def test_the_option_by_which_a_device_was_given_is_named():
    with pytest.raises(UnsupportedError, match=r"^--on cuda:99: torch finds .* GPUs?; use --on cpu$"):
        checked_device("cuda:99", "--on")
