"""ONNX models run by ONNX Runtime, for the tests of the writer."""

from functools import cache

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from scaler.export.onnx_model import OLDEST_OPSET, newest_opset
from scaler.export.weights import Array


def session(model: ModelProto, optimise: bool = True) -> onnxruntime.InferenceSession:
    """A session with one thread, with all graph optimisations or none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ModelProto, picture: Array, optimise: bool = True) -> dict[str, Array]:
    """The outputs of a model by name."""
    runtime = session(model, optimise)
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, {"image": picture}), strict=True))


def picture(*shape: int, seed: int = 0) -> Array:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@cache
def newest_readable_opset() -> int:
    """The newest opset that the installed ONNX Runtime reads; it lags behind the `onnx` package."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    for opset in range(newest_opset(), OLDEST_OPSET, -1):
        opsets = [helper.make_opsetid("", opset)]
        try:
            session(helper.make_model(body, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)))
        except (Fail, InvalidArgument):
            continue
        return opset
    raise AssertionError("ONNX Runtime reads no opset of ours")
