"""Networks as files that runtimes read."""

from scaler.errors import MissingExtraError


def require_onnx() -> None:
    """Make sure that the modules of this package can be imported; whoever imports one late calls this first.

    Raises:
        MissingExtraError: The package `onnx` is not installed.
    """
    try:
        import onnx  # noqa: F401, PLC0415
    except ImportError:
        raise MissingExtraError("writing ONNX files", "onnx", "export") from None
