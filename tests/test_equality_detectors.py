"""Detectors against implementations by other hands: darknet's own configuration files and YOLOX."""

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scaler.graph.graph import Graph
from scaler.models.backbones import darknet
from scaler.models.detectors import tiny_yolov3, yolox
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.scaled_yolov4 import build as build_yolov4

torch = pytest.importorskip("torch", reason="torch is not installed")

from equality import compare, settled  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from scaler.training.network.module import to_torch  # noqa: E402

pytestmark = pytest.mark.slow


def owners(graph: Graph, last: Sequence[str] = ()) -> list[str]:
    """Modules with numbers in the graph's order, those of some placements in the order given at the end."""
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in to_torch(graph).state_dict()))
    rank = {name: number for number, name in enumerate(last, start=1)}
    return sorted(modules, key=lambda module: next((n for name, n in rank.items() if module.startswith(f"{name}.")), 0))


@pytest.fixture(scope="module")
def darknet2pytorch() -> ModuleType:
    """A reader of darknet's configuration files, which come with it."""
    pytest.importorskip("yolov4", reason="wf-pytorch-yolo-v4 is not installed: .ci/equality.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from yolov4.tool import darknet2pytorch
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ToolImport"]  # its leftover
    return darknet2pytorch


class Maps(nn.Module):
    """A darknet network that returns the raw maps of its scales, or what the layer of a number reads."""

    def __init__(self, module: ModuleType, file: Path, reader: int | None) -> None:
        super().__init__()
        self.darknet = module.Darknet(file)
        self.found: list[Tensor] = []
        if reader is not None:
            self.darknet.models[reader].register_forward_pre_hook(lambda _, inputs: self.found.extend(inputs))

    def forward(self, source: Tensor) -> list[Tensor]:
        """The decoding at the end is left out in training mode only."""
        self.found.clear()
        for part in (self.darknet, *self.darknet.models):
            if not isinstance(part, nn.Sequential):
                part.training = True
        maps = self.darknet(source)
        return self.found or maps


def darknet_maps(
    module: ModuleType, name: str, folder: Path, *, reader: int | None = None, leaky: bool = False
) -> Maps:
    """A network of the package, with what its reader insists on added to the file."""
    text = (Path(module.__file__).parents[1] / "cfg" / f"{name}.cfg").read_text(encoding="utf-8")
    if "scale_x_y" not in text:
        text = text.replace("[yolo]", "[yolo]\nscale_x_y=1")
    file = folder / f"{name}.cfg"
    file.write_text(text.replace("mish", "leaky") if leaky else text, encoding="utf-8")
    return settled(Maps(module, file, reader), 224)


@pytest.mark.parametrize(
    ("name", "graph", "last"),
    [
        (
            "yolov4-tiny",
            build_yolov4(ScaledYoloV4Config(variant="tiny", resolution=224)),
            ["neck.stride32", "head.stride32", "neck.stride16", "head.stride16"],
        ),
        (
            "yolov3-tiny",
            tiny_yolov3.build(224),
            ["neck.reduce", "head.stride32", "neck.path16", "head.stride16"],
        ),
    ],
    ids=["yolov4-tiny", "yolov3-tiny"],
)
def test_a_detector_computes_what_darknets_file_says(
    darknet2pytorch: ModuleType, tmp_path: Path, name: str, graph: Graph, last: Sequence[str]
):
    theirs = darknet_maps(darknet2pytorch, name, tmp_path)
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in theirs.state_dict()))
    loaded = compare(graph, theirs, dict(zip(owners(graph, last), modules, strict=True)))
    assert not loaded.missing + loaded.unused


@pytest.mark.parametrize(
    ("name", "variant", "reader"), [("yolov3", "darknet-53", 75), ("yolov4", "cspdarknet-53", 105)]
)
def test_a_backbone_computes_what_the_start_of_darknets_file_says(
    darknet2pytorch: ModuleType, tmp_path: Path, name: str, variant: str, reader: int
):
    """The CSP backbone is compared with leaky ReLU, as its classifier has it; the detector's file says Mish."""
    whole = darknet.classifier(variant, 224)
    graph = Graph(whole.name, whole.input_shape, whole.placements[:-1], (("out", len(whole.placements) - 2),))
    theirs = darknet_maps(darknet2pytorch, name, tmp_path, reader=reader, leaky=True)
    ours = owners(graph)
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in theirs.state_dict()))
    loaded = compare(graph, theirs, dict(zip(ours, modules[: len(ours)], strict=True)))
    assert not loaded.missing


YOLOX_PLACES = {
    "backbone.stem.unit": "backbone.stem.conv",
    **{f"backbone.dark{stage}.down.unit": f"backbone.dark{stage}.0" for stage in (2, 3, 4, 5)},
    **{f"backbone.dark{stage}.csp": f"backbone.dark{stage}.{2 if stage == 5 else 1}" for stage in (2, 3, 4, 5)},
    "backbone.dark5.pooling.reduce": "backbone.dark5.1.conv1",
    "backbone.dark5.pooling.expand": "backbone.dark5.1.conv2",
    "neck.top_down.reduce32.unit": "lateral_conv0",
    "neck.top_down.csp16": "C3_p4",
    "neck.top_down.reduce16.unit": "reduce_conv1",
    "neck.top_down.csp8": "C3_p3",
    "neck.bottom_up.path16.down": "bu_conv2",
    "neck.bottom_up.csp16": "C3_n3",
    "neck.bottom_up.path32.down": "bu_conv1",
    "neck.bottom_up.csp32": "C3_n4",
}
YOLOX_PARTS = (
    (r"\.main\.", ".conv1."),
    (r"\.bypass\.", ".conv2."),
    (r"\.mix\.", ".conv3."),
    (r"\.bottleneck(\d+)\.reduce\.", r".m.\1.conv1."),
    (r"\.bottleneck(\d+)\.conv\.", r".m.\1.conv2."),
    (r"\.depthwise\.", ".dconv."),
    (r"\.pointwise\.", ".pconv."),
)


def yolox_name(ours: str) -> str:
    """The released code's name of a layer of backbone or neck."""
    place = next(place for place in YOLOX_PLACES if ours.startswith(f"{place}."))
    theirs = YOLOX_PLACES[place] + ours.removeprefix(place)
    for pattern, replacement in YOLOX_PARTS:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


class Features(nn.Module):
    """YOLOX' backbone and neck by the released code: its maps of stride 8, 16 and 32."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.other = other

    def forward(self, source: Tensor) -> list[Tensor]:
        """In the order of the strides."""
        maps = self.other(source)
        return [maps[level] for level in ("P3", "P4", "P5")]

    def state_dict(self, **options: Any) -> dict[str, Any]:
        """With the input channels of Focus' convolution cell by cell in rows, which is ONNX' order, not in columns."""
        state = self.other.state_dict(**options)
        stem = "backbone.stem.conv.conv.weight"
        return state | {stem: state[stem].unflatten(1, (2, 2, 3)).transpose(1, 2).flatten(1, 3)}


@pytest.mark.parametrize("variant", ["nano", "tiny", "s", "m"])
def test_the_backbone_and_neck_of_yolox_compute_what_the_released_code_does(variant: str):
    yolox_backbone = pytest.importorskip("yolox_backbone", reason="yolox-backbone is not installed: .ci/equality.txt")
    whole = yolox.build(variant, 128)
    places = {placement.name: number for number, placement in enumerate(whole.placements)}
    kept = whole.placements[: places["neck.bottom_up.csp32"] + 1]
    outputs = [f"neck.{place}" for place in ("top_down.csp8", "bottom_up.csp16", "bottom_up.csp32")]
    graph = Graph(whole.name, whole.input_shape, kept, tuple((name, places[name]) for name in outputs))
    theirs = settled(Features(yolox_backbone.create_model(f"yolox-{variant}")), 128)
    loaded = compare(graph, theirs, {name: yolox_name(name) for name in owners(graph)})
    assert not loaded.missing + loaded.unused
