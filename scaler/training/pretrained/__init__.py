"""Weights that others trained, as the start of a detector: recognised, imported, transferred.

`weights.read_weights(name or path)` gives `Weights`; `transfer.prepared(spec, weights)` gives the network that they fit
and `transfer.transfer(module, graph, weights, blocks)` fills its module. `catalogue` and `facts` need no torch.
"""
