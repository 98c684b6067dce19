"""Networks as torch modules. The only room that imports torch; it needs the extra `train`."""

from scaler.errors import MissingExtraError


def require_torch() -> None:
    """Make sure that the modules of this package can be imported; whoever imports one late calls this first.

    Raises:
        MissingExtraError: The package `torch` is not installed.
    """
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError:
        raise MissingExtraError("training", "torch", "train") from None
