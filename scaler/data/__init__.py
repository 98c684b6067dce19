"""The user's pictures and boxes: what `data.toml` describes, checked, augmented and generated. Knows no torch."""

from typing import Any

from scaler.errors import MissingExtraError


def require_cv2() -> Any:
    """Return OpenCV, which decodes, resizes and draws pictures.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import cv2  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("reading pictures", "opencv-python-headless", "train") from None
    return cv2
