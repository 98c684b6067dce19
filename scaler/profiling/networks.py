"""The networks of a plan: from parameters to graphs and to ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scaler.devices import Device, Precision
from scaler.errors import UsageError, UserError, unknown_name
from scaler.graph.graph import Graph
from scaler.models.detectors.families import FAMILIES, build
from scaler.profiling.plan_file import Plan
from scaler.search import memory
from scaler.search.predictors import classes_of
from scaler.space import MEMBER, Params, Space, Value
from scaler.space_file import read_space

if TYPE_CHECKING:
    from onnx import ModelProto

ONNX_RUNTIME = "onnxruntime"
_MADE_UP = (-4.0, 4.0)
"""Range of every tensor of a network that serves timing only: integers take as long whatever they stand for."""


def space_of(plan: Plan) -> Space:
    """The plan's search space, which must still be the one that it was made for.

    Raises:
        UserError: The space has changed since, or there is no such data set.
    """
    space = read_space(plan.space)
    if space.digest != plan.digest:
        raise UserError(
            f"the space {plan.space} has changed since the plan was made: make it anew with scaler profile plan"
        )
    classes_of(plan.dataset)  # says where there is no such data set
    return space


def graph_of(space: Space, params: Params, dataset: str) -> Graph:
    """The network of a candidate."""
    return build(space.configure(params, classes_of(dataset)))


def fitting(space: Space, dataset: str, device: Device, precision: Precision) -> Callable[[Params], bool]:
    """Whether a device has the memory to build and run a candidate."""

    def fits(params: Params) -> bool:
        graph = graph_of(space, params, dataset)
        return memory.surely_fits(graph, device) or memory.excess(graph, device, precision) <= 0

    return fits


def reference_of(plan: Plan, space: Space) -> dict[str, Value]:
    """The reference network of a plan as a table records it: family, parameters and classes."""
    own = {name: value for name, value in plan.reference.items() if name != MEMBER}
    return {"family": space.family_of(plan.reference), **own, "classes": classes_of(plan.dataset)}


def reference_graph(reference: Mapping[str, Value]) -> Graph:
    """The network that `reference_of` describes.

    Raises:
        UserError: The family, or a parameter, is unknown.
    """
    name = str(reference.get("family"))
    if name not in FAMILIES:
        raise UsageError(unknown_name("family of the table's reference network", name, FAMILIES))
    family = FAMILIES[name]
    try:
        return family.build(family.configure(**{key: value for key, value in reference.items() if key != "family"}))
    except TypeError:
        raise UserError(f"the table's reference network has parameters that {name} does not know") from None


def write_network(graph: Graph, plan: Plan, path: Path) -> None:
    """Write a network as the plan wants it, with weights that serve timing only.

    ONNX Runtime computes in 8-bit integers what the file says: for it an INT8 network has Q/DQ nodes, with ranges that
    serve timing only. TensorRT makes up ranges itself, from a float file.

    Raises:
        MissingExtraError: The package `onnx`, or for INT8 `onnxruntime`, is not installed.
    """
    from scaler.export import require_onnx  # noqa: PLC0415

    require_onnx()
    from scaler.export.onnx_model import to_onnx, write_onnx  # noqa: PLC0415

    model = to_onnx(graph, batch=plan.batch, opset=plan.opset)
    if plan.precision == "int8" and plan.runtime == ONNX_RUNTIME:
        model = _in_integers(model)
    write_onnx(model, path)


def _in_integers(model: ModelProto) -> ModelProto:
    """A float network with Q/DQ nodes for ONNX Runtime, whose ranges nobody measured."""
    from scaler.export.int8 import quantised  # noqa: PLC0415
    from scaler.export.int8_calibration import Calibration  # noqa: PLC0415
    from scaler.export.int8_graph import digest  # noqa: PLC0415

    tensors = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    ranges = dict.fromkeys(tensors, _MADE_UP)
    made_up = Calibration(method="min-max", ranges=ranges, model=digest(model), pictures="", count=0)
    return quantised(model, made_up, target="onnxruntime")
