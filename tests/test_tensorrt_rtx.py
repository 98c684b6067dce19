"""NVIDIA's own parser and builder read what is written, and fuse it as our rules say, with differences that are named.

TensorRT for RTX brings the parser and the builder of TensorRT without a GPU: its engines are made ahead of time for
another one, here an Ampere GPU (SM 8.6, the nearest to Orin's 8.7 that it knows). It has other kernels than a Jetson's
TensorRT, so it says what is valid and what NVIDIA's compiler considers one kernel, not how fast anything is.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from scaler.export.decode import Decode
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, newest_opset, to_onnx
from scaler.export.onnx_nodes import SEPARATOR
from scaler.graph.graph import Graph
from scaler.graph.ops import Activation, BatchNorm, Conv, Op
from scaler.latency.fusion import kernel_groups
from scaler.latency.kernels import Kernel
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.detectors import families
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import BACKBONES, NECKS, YoloRetConfig, build, published_drop

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx-cu12")
pytestmark = pytest.mark.slow


OTHER_FAMILIES: tuple[families.Config, ...] = (
    *(
        ScaledYoloV4Config(variant=variant, rfcr=5 if "tiny" in variant else 0, width=width, resolution=256)
        for variant, width in (("tiny", 1.0), ("tiny-3l", 1.0), ("csp", 0.5), ("p5", 0.25), ("p6", 0.25), ("p7", 0.25))
    ),
    YoloRetConfig(backbone="vovnet2-39", neck="panet", rfcr=5, resolution=160),
    YoloRetConfig(backbone="vovnet2-19-slim-dw", neck="bifpn", stem="pool", resolution=160),
    RetinaNetConfig(backbone="resnet-50", width=64, resolution=256),
    RetinaNetConfig(backbone="vovnet-39", width=64, lighten="released", resolution=256),
)


class Log(trt.ILogger):
    """Keeps every message."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.errors: list[str] = []

    def log(self, severity: object, message: str) -> None:
        self.lines += message.splitlines()
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)


class BuiltLayer(NamedTuple):
    """A layer of a finished engine."""

    name: str
    layers: frozenset[str]
    """Layers of the graph that it computes, wholly or in part; none for moves and transpositions of its own."""


def read(model: ModelProto) -> tuple[object, object, Log]:
    """Builder, parsed network and log; the builder must outlive the network."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    accepted = parser.parse(model.SerializeToString())
    assert accepted == (parser.num_errors == 0)
    log.errors += [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return builder, network, log


def built(model: ModelProto) -> list[BuiltLayer]:
    """Build an engine for SM 8.6; its layers in order of execution, by the log of the build."""
    builder, network, log = read(model)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, log.errors
    assert engine.nbytes > 0
    lines = (re.match(r"Name: (\S+), LayerType: \w+, .*Metadata: ?(.*)$", line) for line in log.lines)
    return [
        BuiltLayer(m[1], frozenset(n.partition(SEPARATOR)[0] for n in re.findall(r"\[ONNX Layer: ([^\]]*)\]", m[2])))
        for m in lines
        if m
    ]


def detector(backbone: str, neck: str, rfcr: int = 5, resolution: int = 160) -> Graph:
    config = YoloRetConfig(
        backbone=backbone,
        width=0.75 if backbone == "mobilenetv2" else 1.0,
        drop=published_drop(backbone),
        neck=neck,
        rfcr=rfcr,
        shortcut=bool(rfcr),
        resolution=resolution,
    )
    return build(config)


@cache
def newest_parsed_opset() -> int:
    """The newest opset that its parser takes."""
    graph = resnet.classifier("18", 64)
    return next(o for o in range(newest_opset(), OLDEST_OPSET, -1) if not read(to_onnx(graph, opset=o))[2].errors)


class TestParser:
    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, None])
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_every_neck_is_accepted_with_its_shapes(self, backbone: str, opset: int | None):
        for neck in NECKS:
            for rfcr in (0, 5):
                graph = detector(backbone, neck, rfcr)
                _, network, log = read(to_onnx(graph, opset=opset or newest_parsed_opset(), batch=2))
                assert log.errors == []
                outputs = [network.get_output(index) for index in range(network.num_outputs)]
                assert [(o.name, tuple(o.shape)) for o in outputs] == [
                    (label, (2, *graph.placements[place].block.shape)) for label, place in graph.outputs
                ]

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, None])
    @pytest.mark.parametrize(
        "graph",
        [mobilenetv2.classifier(0.5), efficientnet.classifier("b0"), resnet.classifier("50")],
        ids=lambda graph: graph.name,
    )
    def test_classifiers_are_accepted(self, graph: Graph, opset: int | None):
        assert read(to_onnx(graph, opset=opset or newest_parsed_opset()))[2].errors == []

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, None])
    @pytest.mark.parametrize("config", OTHER_FAMILIES, ids=lambda config: config.name)
    def test_every_other_family_is_accepted_with_and_without_decoding(self, config: families.Config, opset: int | None):
        graph = families.build(config)
        for decode in (None, Decode(nms="none")):
            model = to_onnx(graph, opset=opset or newest_parsed_opset(), decode=decode)
            _, network, log = read(model)
            assert log.errors == []
            outputs = [tuple(network.get_output(index).shape) for index in range(network.num_outputs)]
            assert outputs[0] == (
                (1, graph.boxes, 4) if decode else (1, *graph.placements[graph.outputs[0][1]].block.shape)
            )

    def test_its_newest_opset_is_beyond_that_of_tensorrt_8_2(self):
        assert DEFAULT_OPSET < 17 <= newest_parsed_opset()

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17])
    @pytest.mark.parametrize("nms", ["none", "onnx"])
    def test_decoding_is_accepted_with_its_shapes(self, nms: str, opset: int):
        graph = detector("mobilenetv2", "fpn")
        _, network, log = read(to_onnx(graph, opset=opset, batch=2, decode=Decode(nms=nms)))
        assert log.errors == []
        shapes = {o.name: tuple(o.shape) for o in map(network.get_output, range(network.num_outputs))}
        assert shapes["boxes"] == (2, graph.boxes, 4)
        assert shapes["scores"] == (2, graph.boxes, 20)
        assert shapes.keys() == {"boxes", "scores"} | ({"selected_indices"} if nms == "onnx" else set())


FIELDS = {
    "score_threshold": trt.PluginFieldType.FLOAT32,
    "iou_threshold": trt.PluginFieldType.FLOAT32,
    "max_output_boxes": trt.PluginFieldType.INT32,
    "background_class": trt.PluginFieldType.INT32,
    "score_activation": trt.PluginFieldType.INT32,
    "box_coding": trt.PluginFieldType.INT32,
}
"""Of EfficientNMS_TRT in TensorRT 8.2 (branch release/8.2, plugin/efficientNMSPlugin)."""


class EfficientNms(trt.IPluginCreatorV3One):
    """Stands in for the plugin that RTX lacks: takes down what the parser hands over, and makes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.plugin_version, self.plugin_namespace = "EfficientNMS_TRT", "1", ""
        self.field_names = trt.PluginFieldCollection(
            [trt.PluginField(name, np.array([]), kind) for name, kind in FIELDS.items()]
        )
        self.given: dict[str, tuple[object, list[float]]] = {}

    def create_plugin(self, _name: str, fields: object, _phase: object) -> None:
        self.given = {field.name: (field.type, np.array(field.data).tolist()) for field in fields}


class TestPlugin:
    MODEL = to_onnx(detector("mobilenetv2", "none", 0), decode=Decode(nms="efficient", confidence=0.25, iou=0.625))

    def test_without_the_plugin_only_it_is_missing(self):
        _, _, log = read(self.MODEL)
        assert any("Plugin not found" in error for error in log.errors)
        assert any("EfficientNMS_TRT" in line for line in log.lines)

    def test_the_parser_finds_the_plugin_in_our_domain_and_hands_it_every_attribute(self):
        registry, creator = trt.get_plugin_registry(), EfficientNms()
        assert registry.register_creator(creator, "")
        try:
            _, _, log = read(self.MODEL)
        finally:
            registry.deregister_creator(creator)
        values = [0.25, 0.625, 100, -1, 0, 0]
        assert creator.given == {
            name: (kind, [value]) for (name, kind), value in zip(FIELDS.items(), values, strict=True)
        }
        assert not any("Plugin not found" in error for error in log.errors)


def halved(model: ModelProto) -> ModelProto:
    """The model in FP16, which a strongly typed builder wants written down."""
    half = ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return half


class Compared(NamedTuple):
    """One of our kernels beside the engine."""

    kind: str
    kernel: Kernel
    parts: int
    """Layers of the engine that compute its nodes; 0 where none says that it does."""
    others: frozenset[str]
    """Kinds of the operators that these layers compute beside them."""

    @property
    def verdict(self) -> str:
        if not self.parts:
            return "nameless"
        pieces = [f"in {self.parts} parts"] * (self.parts > 1) + [f"with {'+'.join(sorted(self.others))}"] * bool(
            self.others
        )
        return ", ".join(pieces) or "same"


def kind_of(op: Op) -> str:
    """Name of an operator in the verdicts."""
    return op.kind if isinstance(op, Activation) else type(op).__name__.lower()


def kind_of_kernel(kernel: Kernel) -> str:
    """`conv+relu6`, `conv+residual`, `pointwise sigmoid+mul`, ..."""
    if kernel.op == "pointwise":
        return f"pointwise {kernel.activation}"
    return "+".join(
        [kernel.op, *["residual"] * (kernel.inputs > 1), *[kernel.activation] * (kernel.activation != "none")]
    )


def compared(graph: Graph, engine: list[BuiltLayer]) -> Iterator[Compared]:
    """Every kernel that computes nodes of the graph, and what the engine makes of these nodes."""
    kinds = {layer.name: kind_of(layer.op) for layer in graph.layers()}
    for placement in graph.placements:
        for kernel, nodes in kernel_groups(placement.block):
            members = [placement.block.nodes[index] for index in nodes]
            own = {f"{placement.name}.{node.name}" for node in members if not isinstance(node.op, BatchNorm)}
            parts = [layer.layers for layer in engine if layer.layers & own]
            if own:
                others = frozenset(kinds[name] for part in parts for name in part - own)
                yield Compared(kind_of_kernel(kernel), kernel, len(parts), others)


class Difference(NamedTuple):
    """How the engine may cut a kind of kernel otherwise than our rules do, and why."""

    parts: int
    others: frozenset[str]
    reason: str


DIFFERENCES = {
    "conv": Difference(
        1, frozenset({"swish", "sigmoid", "weightedsum"}), "it computes what reads it element by element"
    ),
    "pointwise swish": Difference(
        1, frozenset({"conv", "globalaveragepool"}), "the convolution before it computes it, or the mean after it"
    ),
    "reduce": Difference(1, frozenset({"swish"}), "one pass over the map for the swish before it and the mean"),
    "pointwise sigmoid+mul": Difference(
        2, frozenset({"conv"}), "the convolution computes the sigmoid, on a vector; the gate stays alone"
    ),
    "pointwise add": Difference(
        4,
        frozenset({"conv", "upsample", "weightedsum"}),
        "every term of a weighted sum is scaled and added where it is made",
    ),
    "resize": Difference(1, frozenset({"weightedsum", "concat"}), "it scales, or writes into the joint buffer"),
    "copy": Difference(1, frozenset({"upsample", "concat"}), "the resize copies too; a bare move has no name"),
    "linear": Difference(2, frozenset(), "for one picture a product and a sum"),
}


def agrees(row: Compared) -> bool:
    return row.parts == 1 and not row.others


def explained(row: Compared, precision: str) -> bool:
    """Whether the engine does as our rules say or differs as `DIFFERENCES` says.

    In FP16 a convolution whose input channels are no multiple of 8 has a kernel before it that pads them.
    """
    padded = precision == "fp16" and row.kernel.op == "conv" and row.kernel.c_in % 8 != 0
    allowed = DIFFERENCES.get(row.kind, Difference(1, frozenset(), ""))
    least = 0 if row.kind == "copy" else 1
    return agrees(row) or (least <= row.parts <= allowed.parts + padded and row.others <= allowed.others)


@cache
def comparison(precision: str) -> tuple[Compared, ...]:
    """Every kernel of networks with every neck, with and without RFCR, and of classifiers."""
    graphs = [
        *(detector(b, neck, rfcr) for b in ("mobilenetv2", "efficientnet-b0") for neck in NECKS for rfcr in (0, 5)),
        mobilenetv2.classifier(1.0),
        resnet.classifier("18"),
        resnet.classifier("50"),
    ]
    models = [(graph, to_onnx(graph)) for graph in graphs]
    return tuple(
        row
        for graph, model in models
        for row in compared(graph, built(halved(model) if precision == "fp16" else model))
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
class TestFusion:
    def test_every_difference_from_our_rules_is_explained(self, precision: str):
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for row in comparison(precision):
            table[row.kind][row.verdict] += 1
        print(f"\n{precision}: our kernels, and what TensorRT for RTX {trt.__version__} makes of their nodes")
        for kind in sorted(table):
            print(f"{kind:22} {', '.join(f'{n} {verdict}' for verdict, n in table[kind].most_common())}")
        assert [row for row in comparison(precision) if not explained(row, precision)] == []

    def test_convolutions_with_their_relu_and_residual_are_our_kernels(self, precision: str):
        rows = [row for row in comparison(precision) if row.kind not in DIFFERENCES]
        kinds = Counter(row.kind for row in rows)
        assert kinds.keys() >= {"conv+relu", "conv+relu6", "conv+residual", "conv+residual+relu", "depthwise", "pool"}
        assert kinds.total() > 800
        assert all(agrees(row) or (precision == "fp16" and row.kernel.c_in % 8) for row in rows)

    def test_every_swish_and_gate_is_cut_otherwise(self, precision: str):
        """What our rules, made for the Nano's and the Xaviers' TensorRT, have as kernels of their own."""
        rows = [row for row in comparison(precision) if row.kind in ("pointwise swish", "pointwise sigmoid+mul")]
        assert len(rows) > 700
        assert not any(agrees(row) for row in rows)


class TestBuilder:
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_every_neck_becomes_an_engine(self, backbone: str):
        for neck in NECKS:
            graph = detector(backbone, neck)
            computed = frozenset().union(*(layer.layers for layer in built(to_onnx(graph))))
            assert {layer.name for layer in graph.layers() if isinstance(layer.op, Conv)} <= computed

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, 17, None])
    def test_the_opset_does_not_change_the_engine(self, opset: int | None):
        graph = detector("efficientnet-b0", "panet")
        layers = [layer.layers for layer in built(to_onnx(graph, opset=DEFAULT_OPSET))]
        assert [layer.layers for layer in built(to_onnx(graph, opset=opset or newest_parsed_opset()))] == layers

    def test_decoding_becomes_part_of_an_engine(self):
        """Without NMS: RTX parses NonMaxSuppression but has no kernel for it."""
        model = to_onnx(detector("mobilenetv2", "fpn"), decode=Decode())
        assert "decode" in frozenset().union(*(layer.layers for layer in built(model)))
