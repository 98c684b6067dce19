"""scaler: hardware-aware neural architecture search and model scaling for object detectors."""

__version__ = "0.1.0"
