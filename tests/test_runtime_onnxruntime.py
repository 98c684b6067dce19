"""The ONNX Runtime of the computer at hand: conformance, names, refusals, and the way from a plan to a table."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper
from runtime_conformance import RuntimeConformance, names_of, small_model
from synthetic_device import TINY_EFFORT, TINY_SPACE, graphs_of, make_plan

from scaler.errors import MissingExtraError, UsageError
from scaler.host import processor_name
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import ONNX_RUNTIME, graph_kernels
from scaler.latency.table import read_table, write_table
from scaler.profiling.measurement import quiet_reference_ms
from scaler.profiling.run import run
from scaler.profiling.tabulate import tabulate
from scaler.runtimes import onnxruntime_cpu
from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from scaler.runtimes.protocol import ModelRejectedError, Runtime, RuntimeFailedError


class TestOnnxRuntimeCpu(RuntimeConformance):
    @pytest.fixture(params=[True, False], ids=["blocked", "plain"])
    def runtime(self, request) -> Runtime:
        return OnnxRuntimeCpu(threads=1, blocked_layout=request.param)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "small.onnx", channels=32)


def with_input(path: Path, kind: int, *shape: int | str) -> Path:
    """A model of one node."""
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"], name="abs")], "one", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path.write_bytes(made.SerializeToString())
    return path


def test_conditions_name_threads_processor_and_what_is_unusual():
    plain = OnnxRuntimeCpu().conditions()
    other = OnnxRuntimeCpu(3, precision="int8", batch=2, blocked_layout=False).conditions()
    assert (plain.runtime, plain.precision, plain.batch, plain.power_mode) == ("onnxruntime", "fp32", 1, "1-thread")
    assert plain.processor == processor_name()
    assert plain.notes == ()
    assert (other.power_mode, other.batch, other.notes) == ("3-threads", 2, ("blocked layout off",))
    assert other.precision == "int8"


@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(threads):
    with pytest.raises(UsageError, match=f"threads = {threads}: allowed is 1 or more"):
        OnnxRuntimeCpu(threads)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_says_how_to_install_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scaler-nas\[onnxruntime\]'"):
        OnnxRuntimeCpu()


def test_a_model_without_a_fixed_shape_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelRejectedError) as refused:
        OnnxRuntimeCpu().prepare(with_input(tmp_path / "free.onnx", TensorProto.FLOAT, "batch", 3))
    assert "free.onnx: the input x has no fixed shape" in str(refused.value)


def test_an_input_of_another_format_fails_in_one_line(tmp_path):
    with pytest.raises(RuntimeFailedError) as failed:
        OnnxRuntimeCpu().prepare(with_input(tmp_path / "whole.onnx", TensorProto.INT32, 2, 3))
    assert "whole.onnx" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "plain"])
def test_every_layer_of_the_profile_has_an_owner(model, blocked):
    """The changes of layout too: they are counted to a node on whose account they are made."""
    with OnnxRuntimeCpu(blocked_layout=blocked).prepare(model) as session:
        layers = session.profile(3)
    assert all(layer.nodes for layer in layers)
    assert {name for layer in layers for name in layer.nodes} <= set(names_of(model))
    assert len({layer.name for layer in layers}) == len(layers)


def test_a_model_whose_nodes_have_no_names_is_attributed_by_its_tensors(model):
    loaded = onnx.load(str(model))
    for node in loaded.graph.node:
        node.name = ""
    model.write_bytes(loaded.SerializeToString())
    with OnnxRuntimeCpu().prepare(model) as session:
        named = [name for layer in session.profile(2) for name in layer.nodes]
    assert named
    assert "" not in named


def test_the_profile_leaves_no_file_behind(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_cpu, "TemporaryDirectory", lambda **_: kept(tmp_path / "profile"))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    with OnnxRuntimeCpu().prepare(model) as session:
        session.profile(2)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "profile"}, "all files lie in the folder that is removed"


class kept:  # noqa: N801
    """A folder that stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def __enter__(self) -> str:
        return str(self.path)

    def __exit__(self, *_: object) -> None:
        pass


def event(name: str, us: float, kind: str = "Conv", category: str = "Node") -> dict[str, object]:
    return {"cat": category, "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": kind}}


def test_warm_up_inferences_and_other_events_are_not_counted():
    events = [event("a", 9000), event("a", 8000), event("a", 1000), event("a", 1000), event("run", 1, "x", "Session")]
    found = onnxruntime_cpu._timed(events, skipped=2)
    assert {name: (entry.kind, entry.ms) for name, entry in found.items()} == {"a": ("Conv", 1.0)}


def test_a_neighbour_that_is_busy_half_of_the_time_does_not_change_a_layers_time():
    events = [event("a", 1000 if index % 2 else 5000) for index in range(20)]
    assert onnxruntime_cpu._timed(events, skipped=0)["a"].ms == 1.0


def test_the_longest_known_beginning_of_a_name_is_its_owner():
    known = {"a.conv", "a.conv2", "b"}
    assert onnxruntime_cpu._known_part("a.conv2_nchwc_fused", known) == "a.conv2"
    assert onnxruntime_cpu._known_part("a.conv_x", known) == "a.conv"
    assert onnxruntime_cpu._known_part("c", known) == ""


def test_numbers_change_on_the_account_of_the_layer_that_reads_them():
    def node(kind: str, name: str, source: str, result: str) -> NodeProto:
        return helper.make_node(kind, [source], [result], name=name)

    nodes = [
        node("QuantizeLinear", "image/quantize", "image", "image_q"),
        node("Transpose", "Transpose", "image_q", "image_nhwc"),
        node("QLinearConv", "stem.conv_quant", "image_nhwc", "stem_q"),
        node("Transpose", "Transpose_token_1", "stem_q", "stem_nchw"),
        node("DequantizeLinear", "stem/dequantize", "stem_nchw", "stem.conv"),
    ]
    optimised = helper.make_model(helper.make_graph(nodes, "g", [], []))
    owners = onnxruntime_cpu._owners(optimised, {"stem.conv"})
    assert owners == dict.fromkeys(
        ["image/quantize", "Transpose", "stem.conv_quant", "Transpose_token_1", "stem/dequantize"], ("stem.conv",)
    )


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_from_a_plan_to_a_table_that_predicts_its_own_networks(tmp_path, precision):
    """The whole way, for real: six networks measured, their table written, read and used."""
    plan = make_plan(tmp_path, 6, space=TINY_SPACE, precision=precision)
    runtime = OnnxRuntimeCpu(precision=precision)
    found = run(plan, runtime, tmp_path / "work", effort=TINY_EFFORT, settle_seconds=0.3)
    assert all(m.rounds and m.layers for m in found)
    graphs = graphs_of(plan)
    result = tabulate(plan, found, graphs)
    assert result.unknown == ()
    table = read_table(write_table(result.table, tmp_path / "tables"))
    estimator = load_estimator("host", precision=precision, table=table)
    predicted = estimator.predict([estimator.sums(graph) for graph in graphs])
    quiet_ms = quiet_reference_ms(found)  # beside the reference, so that a busy machine does not decide the test
    measured = np.array([m.ratio(quiet_ms) * quiet_ms for m in found])
    assert np.abs(predicted.engine / measured - 1).mean() < 0.35
    assert np.corrcoef(predicted.engine, measured)[0, 1] > 0.7
    for graph, share in zip(graphs, predicted.table_share.tolist(), strict=True):
        ms, in_table = estimator.kernel_times(graph_kernels(graph, ONNX_RUNTIME))
        assert 0 < share == pytest.approx(float(ms[in_table].sum() / ms.sum()))
