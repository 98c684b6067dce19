"""Batch normalisation folded into the convolution before it, for inference."""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fused(module: nn.Module) -> fx.GraphModule:
    """A copy for inference that computes the same with fewer operators.

    A normalisation stays where it does not follow a convolution alone: after a concatenation or pooling, or where
    somebody else reads the convolution too. Where scales share a convolution, they must share the normalisation.

    Args:
        module: What `scaler.training.network.module.to_torch` made; stays as it is.
    """
    network = copy.deepcopy(module).eval()
    traced = network if isinstance(network, fx.GraphModule) else fx.symbolic_trace(network)
    for name, conv in [(name, part) for name, part in traced.named_modules() if isinstance(part, nn.Conv2d)]:
        if (norm_name := _norm_after(traced, name)) is None:
            continue
        norm = traced.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        traced.set_submodule(name, fuse_conv_bn_eval(conv, norm))
        for call in _calls(traced, norm_name):
            call.replace_all_uses_with(call.all_input_nodes[0])
            traced.graph.erase_node(call)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _norm_after(traced: fx.GraphModule, conv: str) -> str | None:
    """The normalisation that follows a convolution at every place, and nothing else."""
    calls = _calls(traced, conv)
    readers = {reader for call in calls for reader in call.users}
    names = {str(reader.target) if reader.op == "call_module" else "" for reader in readers}
    if len(names) != 1 or not (norm := names.pop()) or not isinstance(traced.get_submodule(norm), nn.BatchNorm2d):
        return None
    alone = all(len(call.users) == 1 for call in calls)
    return norm if alone and set(_calls(traced, norm)) == readers else None


def _calls(traced: fx.GraphModule, name: str) -> list[fx.Node]:
    return [node for node in traced.graph.nodes if node.op == "call_module" and node.target == name]
