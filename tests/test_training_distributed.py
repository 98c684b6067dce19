"""Two processes that train together end with the weights of one with the doubled batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from scaler.training.network.checkpoint import _loaded  # noqa: E402

WORKER = Path(__file__).parent / "training_worker.py"


def start(folder: Path, kind: str, rank: int, size: int, port: int) -> subprocess.Popen[bytes]:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in told.items()}
    return subprocess.Popen([sys.executable, str(WORKER), str(folder), kind], env=environment, cwd=WORKER.parent.parent)


def trained(folder: Path, kind: str, size: int) -> dict[str, torch.Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(folder, kind, rank, size, port) for rank in range(size)]
    assert [process.wait(300) for process in processes] == [0] * size
    state: dict[str, torch.Tensor] = _loaded(folder / "last.pt")["state"]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["yolov3", "scaled-yolov4"])
def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, kind: str):
    one, two = (trained(tmp_path / str(size), kind, size) for size in (1, 2))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")
