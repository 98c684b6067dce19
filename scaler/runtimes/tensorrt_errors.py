"""What TensorRT's error messages amount to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from scaler.errors import UserError
from scaler.runtimes.protocol import ModelRejectedError, RuntimeFailedError

_CONSEQUENCES = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Engine could not be created from network",
    "Building engine failed",
    "Failed to create engine from model",
    "Engine set up failed",
    "Inference set up failed",
    "Error occurred during inference",
    "In node -1 (",
    "--- Begin node ---",
    "--- End node ---",
)
"""Beginnings of messages that say no more than that something failed."""
_SHOWN = 300
_MESSAGES_SHOWN = 2


class _Cause(NamedTuple):
    pattern: re.Pattern[str]
    error: type[UserError]
    advice: str


_CAUSES = tuple(
    _Cause(re.compile(pattern, re.IGNORECASE), error, advice)
    for pattern, error, advice in (
        (
            r"out ?of ?memory|bad_alloc|could not be allocated|insufficient memory",
            RuntimeFailedError,
            "out of memory; close other programs or allow a smaller workspace",
        ),
        (r"unknown option", RuntimeFailedError, "trtexec is of another version than it says"),
        (r"cuda (?:runtime|failure|error|driver)|cudnn|cublas", RuntimeFailedError, "CUDA failed"),
        (r"insufficient workspace", ModelRejectedError, "allow a larger workspace"),
        (
            r"deserialize_?cuda_?engine|engine deserialization|magic ?tag|version tag",
            RuntimeFailedError,
            "the engine cannot be loaded",
        ),
        (r"plugin not found|no importer|unsupported|not support", ModelRejectedError, "TensorRT lacks an operator"),
        (r"could not find any implementation", ModelRejectedError, "TensorRT has no kernel for a layer"),
    )
)
"""What messages mean, the first that fits."""


def failure(messages: Iterable[str], subject: str, otherwise: type[UserError]) -> UserError:
    """The error that messages of TensorRT amount to.

    Args:
        messages: Its error messages in order.
        subject: What failed, "yolo.onnx: building the engine".
        otherwise: The kind of error where the messages leave it open.
    """
    known = list(dict.fromkeys(message for message in messages if message))
    telling = [message for message in known if not message.startswith(_CONSEQUENCES)]
    shown = "; ".join((telling or known)[:_MESSAGES_SHOWN])[:_SHOWN] or "without a message"
    cause = next((cause for cause in _CAUSES if any(cause.pattern.search(message) for message in known)), None)
    if cause is None:
        return otherwise(f"{subject} failed: {shown}")
    return cause.error(f"{subject} failed, {cause.advice}: {shown}")
