"""On what a run was trained: versions, processors, threads, commit. Nothing that names the user or the machine."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import scaler
from scaler.host import host_cpu, host_memory_gib

PACKAGES = (
    *("torch", "numpy", "albumentations", "faster-coco-eval", "onnx"),
    *("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
)
"""Distributions that a result may depend on; OpenCV comes under several names."""

_GIT_SECONDS = 10


def environment(processes: int = 1) -> dict[str, Any]:
    """Facts of this process and its computer, as plain data.

    Args:
        processes: How many train together.
    """
    cpu = host_cpu()
    return {
        "scaler": scaler.__version__,
        "commit": commit(Path(scaler.__file__).parent.parent),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "cpu": cpu.processor,
        "cores": cpu.cores,
        "memory_gib": host_memory_gib(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
    }


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with `+changes` behind it where files differ; None where there is none."""
    if not (checkout / ".git").exists():  # an installed package may lie inside somebody else's checkout
        return None
    head = _git(checkout, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}+changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else head


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What has changed between two environments, a phrase each: `torch 2.6.0 -> 2.7.1`."""
    old, new = _flat(before), _flat(now)
    return tuple(
        f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)
    )


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    packages = facts.get("packages")
    rest = {name: value for name, value in facts.items() if name != "packages"}
    return {**rest, **(packages if isinstance(packages, Mapping) else {})}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    """What git says; nothing where it is missing or fails."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
