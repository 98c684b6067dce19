"""The ONNX Runtime of the computer at hand: conformance."""

import pytest
from runtime_conformance import RuntimeConformance

from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from scaler.runtimes.protocol import Runtime


class TestOnnxRuntimeCpu(RuntimeConformance):
    @pytest.fixture(params=[True, False], ids=["blocked", "plain"])
    def runtime(self, request) -> Runtime:
        return OnnxRuntimeCpu(threads=1, blocked_layout=request.param)
