"""Networks as immutable graphs of operators with shapes; no deep-learning framework involved."""
