"""Latency: graph to kernels (fusion), tables of kernel times, the device model behind them, the estimator."""
