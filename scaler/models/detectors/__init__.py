"""Detector families: a frozen configuration and `build(config) -> Graph` each."""
