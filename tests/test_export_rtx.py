"""NVIDIA's own parser and builder read files of 16 bits and of an open batch; see `test_tensorrt_rtx`."""

from functools import cache

import pytest
from test_tensorrt_rtx import OTHER_FAMILIES, built, read, trt

from scaler.export.decode import Decode
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, to_onnx
from scaler.graph.graph import Graph
from scaler.models.detectors import families
from scaler.models.detectors.yolo_ret import YoloRetConfig

pytestmark = pytest.mark.slow
CONFIGS: tuple[families.Config, ...] = (YoloRetConfig(backbone="mobilenetv2", neck="bifpn", rfcr=5), *OTHER_FAMILIES)


@cache
def network(config: families.Config) -> Graph:
    return families.build(config)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_network_of_16_bits_with_an_open_batch_is_accepted(config: families.Config, opset: int):
    graph = network(config)
    model = to_onnx(graph, batch=None, opset=opset, decode=Decode(), precision="fp16")
    _, parsed, log = read(model)
    assert log.errors == []
    entry = parsed.get_input(0)
    assert (tuple(entry.shape), entry.dtype) == ((-1, *graph.input_shape), trt.DataType.FLOAT)
    outputs = {o.name: (tuple(o.shape), o.dtype) for o in map(parsed.get_output, range(parsed.num_outputs))}
    assert outputs["boxes"] == ((-1, graph.boxes, 4), trt.DataType.FLOAT)
    assert outputs["scores"][0][:2] == (-1, graph.boxes)
    kinds = [parsed.get_layer(index) for index in range(parsed.num_layers)]
    convolutions = [layer for layer in kinds if layer.type == trt.LayerType.CONVOLUTION]
    assert {layer.get_output(0).dtype for layer in convolutions} == {trt.DataType.HALF}


def test_an_engine_of_16_bits_is_built():
    layers = built(to_onnx(network(CONFIGS[0]), decode=Decode(), precision="fp16"))
    assert len(layers) > 50
    assert any("backbone" in name for layer in layers for name in layer.layers)
