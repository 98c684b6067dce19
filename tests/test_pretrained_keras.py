"""Keras' files of weights: its layouts, its names, and the same numbers as Keras itself."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scaler.data.preprocessing import IMAGENET, SYMMETRIC
from scaler.errors import UserError
from scaler.graph.graph import Graph
from scaler.models.backbones import efficientnet, mobilenetv2
from scaler.models.detectors import yolo_ret

torch = pytest.importorskip("torch", reason="torch is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from equality import agree, settled  # noqa: E402
from pretrained_files import keras_arrays, write_keras  # noqa: E402
from torch import nn  # noqa: E402

from scaler.training.network.mapping import Naming  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.pretrained import keras_h5  # noqa: E402
from scaler.training.pretrained.files import read_arrays, read_content  # noqa: E402
from scaler.training.pretrained.formats import recognise  # noqa: E402
from scaler.training.pretrained.namings import keras_efficientnet, keras_mobilenetv2, owners  # noqa: E402
from scaler.training.pretrained.transfer import transfer  # noqa: E402
from scaler.training.pretrained.weights import Weights, read_weights  # noqa: E402

PREDICTIONS = {"predictions.weight": torch.zeros(1)}
"""A state from which the namings see what the classifier is called."""


@pytest.fixture(scope="module")
def small() -> tuple[Graph, nn.Module, Naming]:
    """MobileNetV2 x0.35 with numbers that tell errors, and Keras' names of its layers."""
    graph = mobilenetv2.classifier(0.35, 64, classes=10)
    return graph, settled(to_torch(graph), 64), keras_mobilenetv2(graph, PREDICTIONS)


def same_numbers(weights: Weights, graph: Graph, module: nn.Module) -> None:
    """All of a module's numbers come back out of a file."""
    copy = to_torch(graph, seed=9)
    found = transfer(copy, graph, weights)
    assert not found.unused
    taken, ours, theirs = set(found.loaded), module.state_dict(), copy.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in taken)
    assert {key for key in ours if not key.startswith("classifier") and "num_batches" not in key} <= taken


@pytest.mark.parametrize("options", [{}, {"group": "model_weights"}, {"pieces": 3}, {"nested": "mobilenetv2_0.35_64"}])
def test_the_old_layout_is_read_in_all_its_forms(small, tmp_path: Path, options: dict):
    graph, module, naming = small
    write_keras(tmp_path / "a.h5", keras_arrays(graph, module, naming), **options)
    weights = read_weights(tmp_path / "a.h5")
    same_numbers(weights, graph, module)
    assert weights.facts.network == "MobileNetV2 x0.35"
    assert (weights.facts.mean, weights.facts.std) == SYMMETRIC
    assert (weights.facts.format, weights.facts.padding, weights.facts.epsilon) == ("keras", "same", 1e-3)


def test_without_a_classifier_the_backbone_is_read(small, tmp_path: Path):
    graph, module, naming = small
    arrays = keras_arrays(graph, module, naming)
    del arrays["predictions"]
    write_keras(tmp_path / "a_no_top.h5", arrays)
    same_numbers(read_weights(tmp_path / "a_no_top.h5"), graph, module)


@pytest.mark.parametrize("top", [True, False])
def test_layers_with_names_of_another_version_are_taken_by_their_order(small, tmp_path: Path, top: bool):
    graph, module, naming = small
    arrays = list(keras_arrays(graph, module, naming).values())
    numbered = {f"layer_{number}": values for number, values in enumerate(arrays if top else arrays[:-1])}
    write_keras(tmp_path / "a.h5", numbered)
    same_numbers(read_weights(tmp_path / "a.h5"), graph, module)


def test_kernels_are_turned_into_torchs_layout(tmp_path: Path):
    kernels = {"conv": {"kernel": np.random.rand(3, 5, 2, 7)}, "wise": {"depthwise_kernel": np.random.rand(3, 5, 4, 1)},
               "dense": {"kernel": np.random.rand(6, 8), "bias": np.random.rand(8)}}  # fmt: skip
    write_keras(tmp_path / "a.h5", kernels)
    state = read_arrays(read_content(tmp_path / "a.h5")).state
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "conv.weight": (7, 2, 3, 5),
        "wise.weight": (4, 1, 3, 5),
        "dense.weight": (8, 6),
        "dense.bias": (8,),
    }
    assert state["conv.weight"][6, 1, 2, 4] == np.float32(kernels["conv"]["kernel"][2, 4, 1, 6])
    assert state["wise.weight"][3, 0, 2, 4] == np.float32(kernels["wise"]["depthwise_kernel"][2, 4, 3, 0])


@pytest.mark.parametrize(
    ("variance", "deviation"),
    [
        ((0.229, 0.224, 0.225), (0.229, 0.224, 0.225)),  # as in Keras' own files
        ((0.04, 0.09, 0.25), (0.2, 0.3, 0.5)),  # as Normalization.adapt learns it
    ],
)
def test_efficientnets_normalisation_is_read_from_the_file(tmp_path: Path, variance: tuple, deviation: tuple):
    inner = {"mean": np.array((0.4, 0.5, 0.6)), "variance": np.array(variance), "count": np.array(1)}
    write_keras(tmp_path / "a.h5", {"normalization": inner, "stem_conv": {"kernel": np.ones((3, 3, 3, 8))}})
    state, facts = keras_h5.read((tmp_path / "a.h5").read_bytes())
    assert set(state) == {"stem_conv.weight"}
    assert facts.normalisation is not None
    assert facts.normalisation[0] == pytest.approx((0.4, 0.5, 0.6))
    assert facts.normalisation[1] == pytest.approx(deviation)


def test_an_efficientnet_without_one_is_for_imagenets(tmp_path: Path):
    graph = efficientnet.classifier("b0", 64, classes=2)
    write_keras(tmp_path / "b.h5", keras_arrays(graph, to_torch(graph), keras_efficientnet(graph, PREDICTIONS)))
    facts = read_weights(tmp_path / "b.h5").facts
    assert (facts.network, (facts.mean, facts.std)) == ("EfficientNet-B0", IMAGENET)


def test_an_hdf5_file_of_something_else_is_one_line(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("temperature", data=np.zeros(3))
    with pytest.raises(UserError, match=r"a\.h5: an HDF5 file without layers that Keras wrote"):
        read_weights(tmp_path / "a.h5")


KERAS = """
import json, os, sys
os.environ["KERAS_BACKEND"] = "torch"
import h5py, keras, numpy as np
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
order = json.loads(sys.argv[1])
os.chdir(order["folder"])
model = getattr(keras.applications, order["class"])(weights=None, **order["options"])
if order["normalised"]:
    mean, variance = model.get_layer("normalization").weights[:2]
    mean.assign(np.reshape((0.485, 0.456, 0.406), mean.shape))
    variance.assign(np.reshape(np.square((0.229, 0.224, 0.225)), variance.shape))
values = np.load("settled.npz")
for layer in model.layers:
    for weight in layer.weights:
        key = f"{layer.name}/{weight.name}"
        if key in values:
            weight.assign(values[key])
        else:
            assert layer.name == "normalization", key
np.save("answer.npy", np.asarray(model(np.load("pictures.npy"), training=False).detach()))
model.save_weights("new.weights.h5")
model.save("whole.h5")
model.save("whole.keras")
with h5py.File("old.h5", "w") as file:
    save_weights_to_hdf5_group(file, model)
"""
"""Fills a network of Keras' with our numbers, by its own names, runs it and writes it in all ways it knows."""


def keras_names(arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """By Keras 3's names, where a depthwise kernel is a kernel."""
    return {f"{layer}/{name.removeprefix('depthwise_')}": values for layer, found in arrays.items()
            for name, values in found.items()}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed: .ci/equality.txt")
@pytest.mark.parametrize(
    ("graph", "naming", "model", "options"),
    [
        (mobilenetv2.classifier(0.75, 96), keras_mobilenetv2, "MobileNetV2", {"alpha": 0.75}),
        (mobilenetv2.classifier(1.4, 96), keras_mobilenetv2, "MobileNetV2", {"alpha": 1.4}),
        (efficientnet.classifier("b0", 96), keras_efficientnet, "EfficientNetB0", {}),
        (efficientnet.classifier("b3", 160), keras_efficientnet, "EfficientNetB3", {}),
    ],
    ids=["mobilenetv2-0.75", "mobilenetv2-1.4", "efficientnet-b0", "efficientnet-b3"],
)
def test_keras_computes_the_same_and_all_its_files_are_read(graph: Graph, naming, model, options, tmp_path: Path):
    side, normalised = graph.input_shape[1], "Efficient" in model
    module = settled(to_torch(graph), side)
    np.savez(tmp_path / "settled.npz", **keras_names(keras_arrays(graph, module, naming(graph, PREDICTIONS))))
    pictures = np.random.default_rng(3).uniform(0, 1, (2, side, side, 3)).astype(np.float32)
    pictures[1, :, : side // 2] *= 0.2
    np.save(tmp_path / "pictures.npy", pictures * 255 if normalised else pictures * 2 - 1)
    options = options | {"input_shape": [side, side, 3], "classifier_activation": None}
    order = {"folder": str(tmp_path), "class": model, "options": options, "normalised": normalised}
    command = [sys.executable, "-c", KERAS, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    expected = torch.from_numpy(np.load(tmp_path / "answer.npy"))
    for name in ("old.h5", "new.weights.h5", "whole.h5", "whole.keras"):
        weights = read_weights(tmp_path / name)
        mean, std = (torch.tensor(values)[:, None, None] for values in (weights.facts.mean, weights.facts.std))
        copy = to_torch(graph, seed=9).eval()
        found = transfer(copy, graph, weights)
        assert set(found.loaded) == {key for key in module.state_dict() if "num_batches" not in key}, name
        source = (torch.from_numpy(pictures.transpose(0, 3, 1, 2)) - mean) / std
        with torch.no_grad():
            agree(copy(source)["logits"], expected)


def test_the_widths_that_only_keras_has_fit_a_detector(tmp_path: Path):
    config = yolo_ret.YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, neck="none", resolution=160, classes=3)
    graph = mobilenetv2.classifier(0.75, 64, classes=5)
    module = to_torch(graph, seed=4)
    write_keras(tmp_path / "a.h5", keras_arrays(graph, module, keras_mobilenetv2(graph, PREDICTIONS)))
    detector = yolo_ret.build(config)
    copy = to_torch(detector, seed=9)
    found = transfer(copy, detector, read_weights(tmp_path / "a.h5"))
    assert len(found.blocks) == found.of_blocks == 17
    assert not found.notes
    assert torch.equal(
        copy.state_dict()["backbone.stage6.block2.project.conv.weight"],
        module.state_dict()["backbone.stage6.block2.project.conv.weight"],
    )
    kept = {layer.name for layer in owners(detector) if layer.name.startswith("backbone.")}
    assert set(found.frozen) == kept


def test_half_a_file_names_what_is_missing(small, tmp_path: Path):
    graph, module, naming = small
    arrays = keras_arrays(graph, module, naming)
    del arrays["block_9_project_BN"]
    write_keras(tmp_path / "a.h5", arrays)
    content = read_content(tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"nearest is MobileNetV2 x0\.35.*'block_9_project_BN\.weight' is missing"):
        recognise(content, read_arrays(content))
