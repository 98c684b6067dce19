"""Weights of others in our networks: recognised by names and shapes, transferred as far as wanted, all told."""

from dataclasses import replace
from pathlib import Path

import pytest

from scaler.data.preprocessing import IMAGENET, SYMMETRIC, UNIT, Preprocessing
from scaler.errors import UsageError, UserError
from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.padding import symmetric
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.training.network.spec import NetworkSpec
from scaler.training.pretrained.catalogue import promised_sha256, published

torch = pytest.importorskip("torch", reason="torch is not installed")

from equality import agree, pictures, settled  # noqa: E402
from pretrained_files import renamed, shapes_only  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from scaler.training.network.checkpoint import Checkpoint, Facts, write_checkpoint  # noqa: E402
from scaler.training.network.mapping import torchvision_mobilenetv2  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.pretrained.files import Arrays, Content  # noqa: E402
from scaler.training.pretrained.formats import FORMATS, Format, classifier, network_of, recognise  # noqa: E402
from scaler.training.pretrained.namings import by_order  # noqa: E402
from scaler.training.pretrained.transfer import Transferred, prepared, transfer  # noqa: E402
from scaler.training.pretrained.weights import Weights, read_weights, weights_in  # noqa: E402

WIDTH = 0.35
RESNET = next(known for known in FORMATS if known.networks[0].backbone == "resnet-18")


def spec(**parameters: object) -> NetworkSpec:
    """A small YOLO-ReT for two classes."""
    chosen = {"backbone": "mobilenetv2", "width": WIDTH, "drop": 2, "neck": "none", "resolution": 160} | parameters
    return NetworkSpec(
        family="yolo-ret", parameters=chosen, classes=("a", "b"), preprocessing=Preprocessing(size=chosen["resolution"])
    )


@pytest.fixture(scope="module")
def original() -> tuple[Graph, nn.Module]:
    """A classifier of torchvision's kind: symmetric padding, epsilon 1e-5, numbers that tell errors."""
    graph = symmetric(mobilenetv2.classifier(WIDTH, 64, classes=10))
    module = to_torch(graph, seed=1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-5
    return graph, settled(module, 64)


@pytest.fixture(scope="module")
def file(original: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph, module = original
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2_small.pth"
    torch.save(renamed(module.state_dict(), graph, torchvision_mobilenetv2(graph)), path)
    return path


@pytest.fixture(scope="module")
def weights(file: Path) -> Weights:
    return read_weights(file)


def torchvision_efficientnet(graph: Graph) -> dict[str, str]:
    """The names of torchvision's EfficientNet, which lists its layers in our order."""
    names = {"classifier.linear": "classifier.1"}
    for number, placement in enumerate(graph.placements[:-1]):
        stage = 0 if number == 0 else 8 if placement.name.endswith("head") else int(placement.name.split(".")[1][5:])
        inside = placement.name.rpartition(".block")[2]
        nodes = [node.name for node in placement.block.nodes]
        units = list(dict.fromkeys(name.rpartition(".")[0] for name in nodes if name.endswith((".conv", "se.reduce"))))
        for place, unit in enumerate(units):
            above = f"features.{stage}.{inside}.block.{place}" if unit != "unit" else f"features.{stage}"
            pairs = (("reduce", "fc1"), ("expand", "fc2")) if unit == "se" else (("conv", "0"), ("bn", "1"))
            names |= {f"{placement.name}.{unit}.{ours}": f"{above}.{theirs}" for ours, theirs in pairs}
    return names


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: f"{known.name} {known.networks[0]}")
def test_every_network_of_every_format_is_recognised_by_names_and_shapes_alone(known: Format):
    for network in known.networks:
        graph = classifier(network)
        naming = torchvision_efficientnet(graph) if known.naming is by_order else known.naming(graph, {})
        arrays = Arrays("PyTorch", shapes_only(graph, naming))
        found = recognise(Content(Path("a.pth"), "a.pth", b""), arrays)
        assert (found.format, found.network) == (known, network)
        assert {ours: theirs for ours, theirs in found.naming.items() if ours in naming} == dict(naming)


def test_a_width_that_nobody_published_names_the_nearest_network():
    graph = mobilenetv2.classifier(0.4, 64)
    arrays = Arrays("PyTorch", shapes_only(graph, torchvision_mobilenetv2(graph)))
    with pytest.raises(UserError, match=r"torchvision's names, but is no network .* nearest is MobileNetV2 x0.35"):
        recognise(Content(Path("a.pth"), "a.pth", b""), arrays)


def test_a_deeper_network_than_any_is_none():
    graph = classifier(RESNET.networks[0])
    state = shapes_only(graph, RESNET.naming(graph, {}))
    more = {"layer1.2.conv1.weight": state["layer1.1.conv1.weight"], "head.0.weight": state["conv1.weight"]}
    with pytest.raises(UserError, match=r"like ResNet-18 in torchvision's names, but with 1 further kernels"):
        recognise(Content(Path("a.pth"), "a.pth", b""), Arrays("PyTorch", state | more))


def test_the_catalogue_agrees_with_what_is_read():
    networks = {known.name: set() for known in FORMATS}
    for known in FORMATS:
        networks[known.name] |= set(known.networks)
    names = [known.file for known in published()]
    assert len(names) == len(set(names)) > 70
    for known in published():
        assert known.network in networks[known.format], known.file
        assert known.url.startswith("https://") and known.url.endswith(known.file)
        assert known.format == "keras" or known.file.rpartition("-")[2].startswith(known.sha256)
        assert known.format == "keras" or len(known.sha256) == 8
    assert {known.network.width for known in published() if known.format == "keras"} >= {0.75, 1.4}


@pytest.mark.parametrize(
    ("file", "promised"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("my-net-deadbeef.pt", "deadbeef"),
        (f"my-net-{'0123456789abcdef' * 4}.pt", "0123456789abcdef" * 4),
        ("run-20260131.pt", ""),
        ("run-20261331.pt", "20261331"),
        ("best.pt", ""),
    ],
)
def test_the_digest_in_a_name_is_no_date(file: str, promised: str):
    assert promised_sha256(file) == promised


def test_the_whole_network_computes_what_the_original_does(original: tuple[Graph, nn.Module], weights: Weights):
    """With the padding of the original; its other epsilon is in the scales."""
    graph, module = original
    copy = to_torch(graph, seed=2).eval()
    found = transfer(copy, graph, weights)
    assert not found.unused + found.skipped + found.notes
    source = pictures(64)
    with torch.no_grad():
        agree(copy(source)["logits"], module(source)["logits"])


def transferred(
    weights: Weights, blocks: int | None, network: NetworkSpec
) -> tuple[Transferred, dict[str, Tensor], dict]:
    """What was transferred, and the state before and after."""
    graph = network.graph()
    module = to_torch(graph, seed=3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    return transfer(module, graph, weights, blocks), before, module.state_dict()


def test_a_cut_backbone_is_filled_and_everything_is_accounted_for(weights: Weights):
    found, before, after = transferred(weights, None, prepared(spec(), weights))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed <= set(found.loaded)
    assert {key.split(".")[0] for key in found.loaded} == {"backbone"}
    assert set(found.loaded) | set(found.missing) == {key for key in after if "num_batches" not in key}
    assert {key.split(".")[1] for key in found.unused} == {"17", "18", "1"}  # the cut blocks, the classifier
    assert (len(found.blocks), found.of_blocks, found.notes) == (17, 17, ())
    first = found.lines()[0]
    assert "17 of 17 backbone blocks, up to backbone.stage6.block2" in first
    assert weights.sha256[:8] in first


@pytest.mark.parametrize("blocks", [0, 1, 6, 17])
def test_the_first_blocks_are_filled_and_no_others(weights: Weights, blocks: int):
    """The steps of the transfer-learning curve: YOLO-ReT, Figure 2."""
    network = prepared(spec(), weights)
    found, before, after = transferred(weights, blocks, network)
    places = [placement.name for placement in network.graph().placements]
    assert found.blocks == tuple(places[:blocks])
    kernels = {key for key in after if key.endswith("conv.weight")}
    changed = {key for key in kernels if not torch.equal(before[key], after[key])}
    assert changed == {key for key in kernels if any(key.startswith(f"{place}.") for place in places[:blocks])}
    assert {part.rpartition(".")[0] for part in found.frozen} <= {key.rpartition(".conv")[0] for key in changed}
    assert len(found.loaded) == sum(after[key].shape == before[key].shape for key in found.loaded)


def test_more_blocks_than_the_backbone_has_is_one_line(weights: Weights):
    with pytest.raises(UsageError, match=r"18 blocks to transfer: the backbone of .* has 0 to 17"):
        transferred(weights, 18, spec())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"width": 0.5}, "these weights are MobileNetV2 x0.35 (torchvision), the network has MobileNetV2 x0.5"),
        ({"width": 0.6}, "is another"),
        ({"backbone": "efficientnet-b0", "width": 1.0}, "the network has EfficientNet-B0"),
        ({"backbone": "vovnet-27-slim", "width": 1.0, "drop": 0}, "is not among them"),
    ],
)
def test_weights_of_another_network_are_one_line_and_nothing_is_loaded(weights: Weights, other: dict, words: str):
    graph = spec(**other).graph()
    with pytest.raises(UserError) as error:
        transfer(nn.Module(), graph, weights)
    assert words in str(error.value)
    assert "scaler weights list" in str(error.value)


def meta_weights(graph: Graph, known: Format) -> Weights:
    """Weights without numbers."""
    state = shapes_only(graph, known.naming(graph, {}))
    content = Content(Path("a.pth"), "a.pth", b"a")
    arrays = Arrays("PyTorch", state)
    found = recognise(content, arrays)
    assert found.format is known
    from scaler.training.pretrained import weights as room

    return room._public(content, arrays)


def test_a_deeper_network_of_the_same_widths_is_another():
    shallow = meta_weights(resnet.classifier("50", 64), RESNET)
    with pytest.raises(UserError, match=r"weights are ResNet-50 .* network has ResNet-101: .*stage3\.block6"):
        transfer(nn.Module(), resnet.classifier("101", 64), shallow)


def test_a_stride_in_another_convolution_is_told():
    weights = meta_weights(resnet.classifier("50", 64), RESNET)
    stem = GraphBuilder((3, 64, 64))
    maps = stem.add("backbone.stem", resnet.stem_block((3, 64, 64)), stem.input)
    module = to_torch(stem.build("stem", [("out", maps)]))
    numbers = {key: torch.ones(value.shape) for key, value in weights.state.items() if key[:3] in ("con", "bn1")}
    weights = replace(weights, state=dict(weights.state) | numbers)
    for stride_in, told in (("1x1", ("stride_in",)), ("3x3", ())):
        body = resnet.trunk("50", 64, stride_in)
        graph = Graph("a", body.input_shape, body.placements, (("out", 0),))
        notes = transfer(module, graph, weights, blocks=1).notes
        assert len(notes) == len(told)
        assert all(word in note for word, note in zip(told, notes, strict=True))


def test_the_network_is_prepared_for_the_weights(weights: Weights):
    fitting = prepared(spec(), weights)
    assert (fitting.preprocessing.mean, fitting.preprocessing.std) == IMAGENET
    assert fitting.symmetric_padding
    assert (spec().preprocessing.mean, spec().preprocessing.std) == UNIT
    found, *_ = transferred(weights, None, spec())
    assert found.notes == ("the weights were trained with padding 'symmetric', which this network has not",)


def checkpoint(path: Path, network: NetworkSpec) -> nn.Module:
    """A file as training writes it, of random weights."""
    module = to_torch(network.graph(), seed=7)
    facts = Facts(epoch=1, step=2, ap=None, ap50=None, recipe="quick", dataset="a", seed=0, scaler_version="0",
                  created="2026-01-01T00:00:00+00:00")  # fmt: skip
    write_checkpoint(path, Checkpoint(spec=network, state=module.state_dict(), facts=facts))
    return module


def test_a_checkpoint_fills_what_fits_and_names_the_heads_that_do_not(tmp_path: Path):
    mean = (0.1, 0.2, 0.3)
    source = replace(spec(rfcr=5), preprocessing=Preprocessing(size=160, mean=mean), symmetric_padding=True)
    trained = checkpoint(tmp_path / "best.pt", source).state_dict()
    weights = read_weights(tmp_path / "best.pt")
    assert (weights.facts.format, weights.facts.mean, weights.facts.padding) == ("scaler", mean, "symmetric")
    other = prepared(replace(spec(rfcr=5), classes=("a", "b", "c")), weights)
    found, _, after = transferred(weights, None, other)
    assert found.skipped
    assert {name.split(".")[0] for name in found.skipped} == {"neck", "head"}
    assert any(key.startswith("rfcr.") for key in found.loaded)
    assert all(torch.equal(after[key], trained[key]) for key in found.loaded)
    assert {name.split(".")[0] for name in found.frozen} == {"backbone"}
    assert f"of other shapes, not loaded: {'.'.join(found.skipped[0].split('.')[:2])}" in found.lines()[-1]
    only, *_ = transferred(weights, 2, other)
    assert {key.split(".")[0] for key in only.loaded} == {"backbone"}


def test_a_checkpoint_that_was_cut_shorter_fills_the_blocks_it_has(tmp_path: Path):
    checkpoint(tmp_path / "best.pt", spec(drop=4))
    found, *_ = transferred(read_weights(tmp_path / "best.pt"), None, spec(drop=2))
    assert (len(found.blocks), found.of_blocks) == (15, 17)
    assert any(key.startswith("backbone.stage6.block1") for key in found.missing)


def test_a_checkpoint_of_another_width_is_one_line(tmp_path: Path):
    checkpoint(tmp_path / "best.pt", spec())
    with pytest.raises(
        UserError, match=r"weights are mobilenetv2-0\.35-.* \(scaler\), the network has MobileNetV2 x0\.5"
    ):
        transfer(nn.Module(), spec(width=0.5).graph(), read_weights(tmp_path / "best.pt"))


def test_the_network_of_a_cut_backbone_is_known():
    assert str(network_of(spec(width=0.75, drop=3).graph())) == "MobileNetV2 x0.75"
    assert str(network_of(efficientnet.classifier("b2", 64))) == "EfficientNet-B2"
    assert network_of(spec(width=0.6).graph()) is None


@pytest.mark.parametrize(
    ("name", "padding", "epsilon", "normalisation", "notes"),
    [
        ("mobilenetv2_035.pth", "symmetric", 1e-5, IMAGENET, 0),
        ("tf_mobilenetv2_035.pth", "same", 1e-3, IMAGENET, 0),
        ("tf_mobilenetv2_ap-x.pth", "same", 1e-3, SYMMETRIC, 0),
        ("model.pth", "symmetric", 1e-5, IMAGENET, 1),
    ],
)
def test_what_timms_names_tell(
    original: tuple[Graph, nn.Module], name: str, padding: str, epsilon: float, normalisation: tuple, notes: int
):
    from io import BytesIO

    from scaler.training.network.mapping import timm_efficientnet

    graph, module = original
    buffer = BytesIO()
    torch.save(renamed(module.state_dict(), graph, timm_efficientnet(graph)), buffer)
    content = Content(Path(name), name, buffer.getvalue())
    facts = weights_in(content).facts
    assert (facts.format, facts.network) == ("timm", "MobileNetV2 x0.35")
    assert (facts.padding, facts.epsilon, (facts.mean, facts.std)) == (padding, epsilon, normalisation)
    assert len(facts.notes) == notes
    chosen = weights_in(content, padding="same", normalisation="unit").facts
    assert (chosen.padding, chosen.epsilon, (chosen.mean, chosen.std), chosen.notes) == ("same", 1e-3, UNIT, ())
