"""Compound scaling: the published rules, and networks scaled by them to a budget or a frame rate."""
