"""Networks of the literature, lowered into the graph: blocks, backbones, necks, heads, detectors."""
