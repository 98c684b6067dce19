"""NVIDIA's own builder makes engines by our code: 8 bits, 16 bits, an open batch; see `test_tensorrt_rtx`.

It has no kernel of ONNX' NMS and no plugin, so files with an NMS inside are read, not built.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from runtime_conformance import is_one_line
from test_tensorrt_rtx import EfficientNms, read, trt

from scaler.errors import UnsupportedError
from scaler.export.decode import Decode, Nms
from scaler.export.int8 import quantised
from scaler.export.int8_calibration import calibrate
from scaler.export.onnx_model import to_onnx
from scaler.models.detectors import families
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.runtimes.power_memory import parse_engine_memory
from scaler.runtimes.protocol import ModelRejectedError
from scaler.runtimes.tensorrt_api import EngineSettings, TensorRtApi
from scaler.runtimes.tensorrt_version import Version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning"),
]
CONFIGS: tuple[families.Config, ...] = (
    YoloRetConfig(backbone="mobilenetv2", width=0.5, neck="panet", rfcr=5, resolution=160),
    ScaledYoloV4Config(variant="tiny", width=0.25, resolution=160),
    RetinaNetConfig(backbone="vovnet2-19-slim-dw", width=16, towers=1, resolution=128),
)
SETTINGS = EngineSettings(precision="int8", workspace_mib=64, batch=4)


@pytest.fixture(scope="module")
def api() -> TensorRtApi:
    return TensorRtApi(trt, Version(11, 0, 0))


@cache
def float_model(config: families.Config, nms: Nms = "none", batch: int | None = 1) -> ModelProto:
    return to_onnx(families.build(config), batch=batch, decode=Decode(nms=nms))


@cache
def int8_model(config: families.Config, nms: Nms = "none", batch: int | None = 1) -> ModelProto:
    before = float_model(config, nms, batch)
    rng = np.random.default_rng(0)
    seen = [rng.random((1, 3, config.resolution, config.resolution), np.float32) for _ in range(2)]
    return quantised(before, calibrate(before, seen, "min-max"))


def written(folder: Path, model: ModelProto) -> Path:
    path = folder / "best.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_an_engine_of_8_bits_is_built_by_its_own_ranges(api: TensorRtApi, tmp_path: Path, config, batch: int | None):
    path = written(tmp_path, int8_model(config, batch=batch))
    network = api.parse(path, builder := api.builder())
    kinds = [network.get_layer(place).type for place in range(network.num_layers)]
    assert kinds.count(trt.LayerType.QUANTIZE) > 20
    configuration = api.configure(builder, network, SETTINGS)
    assert configuration.num_optimization_profiles == (batch is None)
    built = api.build(path, SETTINGS)
    assert len(built.plan) > 100_000
    memory = parse_engine_memory(built.log)
    assert memory.building is not None
    assert memory.activations > 0
    assert memory.weights > 0


def test_an_open_batch_has_a_profile_of_what_was_asked_for(api: TensorRtApi, tmp_path: Path):
    path = written(tmp_path, float_model(CONFIGS[1], batch=None))
    built = api.build(path, EngineSettings(precision="fp32", workspace_mib=64, batch=4))
    assert len(built.plan) > 100_000
    small = EngineSettings(precision="fp32", workspace_mib=64, batch=1)
    more, less = (parse_engine_memory(log).activations for log in (built.log, api.build(path, small).log))
    assert more > less, "room for four pictures instead of one"


def test_a_size_that_is_open_is_refused_before_the_build(api: TensorRtApi, tmp_path: Path):
    model = ModelProto()
    model.CopyFrom(float_model(CONFIGS[1]))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ModelRejectedError) as refused:
        api.build(written(tmp_path, model), EngineSettings(precision="fp32", workspace_mib=64))
    assert is_one_line(refused.value)


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_8_bits_with_onnx_nms_inside_are_read(config: families.Config, batch: int | None):
    _, network, log = read(int8_model(config, "onnx", batch))
    assert log.errors == []
    outputs = {o.name: tuple(o.shape) for o in map(network.get_output, range(network.num_outputs))}
    assert outputs["selected_indices"] == (-1, 3), "the size depends on what is found"
    assert outputs["boxes"][0] == (batch or -1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_8_bits_with_efficient_nms_inside_reach_the_plugin(config: families.Config):
    model = int8_model(config, "efficient")
    assert any(re.search("Plugin not found", error) for error in read(model)[2].errors)
    registry, creator = trt.get_plugin_registry(), EfficientNms()
    assert registry.register_creator(creator, "")
    try:
        _, _, log = read(model)
    finally:
        registry.deregister_creator(creator)
    assert creator.given["max_output_boxes"][1] == [100]
    assert not any("Plugin not found" in error for error in log.errors)


def test_a_dla_is_not_promised_where_there_is_none(api: TensorRtApi, tmp_path: Path):
    settings = EngineSettings(precision="fp16", workspace_mib=64, dla=0)
    with pytest.raises(UnsupportedError, match="no DLA core 0 here: this GPU has none"):
        api.build(written(tmp_path, float_model(CONFIGS[1])), settings)
