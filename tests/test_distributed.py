"""Two processes that train together do what one with all pictures does."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import NETWORKS, gradients
from torch import nn

from scaler.errors import UserError
from scaler.training.loop.distributed import SynchronisedBatchNorm, World, join, synchronised

TESTS = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def together(folder: Path, what: str = "gradients", processes: int = 2) -> list[dict[str, Any]]:
    """What each process of a group wrote."""
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    shared |= {"PYTHONPATH": str(TESTS.parent), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "distributed_worker.py"), what, str(folder)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return together(tmp_path_factory.mktemp("pair"))


@pytest.mark.slow
@pytest.mark.parametrize("family", NETWORKS)
def test_two_processes_with_synchronised_normalisation_have_the_gradients_of_one_with_all_pictures(
    pair: list[dict[str, Any]], family: str
):
    wanted = gradients(family, World())
    assert all(value is not None for value in wanted.values())
    largest = max(float(value.abs().max()) for value in wanted.values())
    for found in (process[family] for process in pair):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7 * largest, msg=lambda m, n=name: n + m)


@pytest.mark.slow
def test_two_processes_with_frozen_normalisation_have_the_gradients_of_one_with_all_pictures(
    pair: list[dict[str, Any]],
):
    wanted = gradients("yolo-ret", World(), frozen=True)
    for process in pair:
        for name, value in wanted.items():
            torch.testing.assert_close(process["frozen"][name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_without_synchronised_normalisation_the_gradients_differ(pair: list[dict[str, Any]]):
    """The comparison above is one that can fail."""
    whole, frozen = gradients("yolo-ret", World()), pair[0]["frozen"]
    assert any(not torch.allclose(frozen[name], value, rtol=2e-3) for name, value in whole.items())


@pytest.mark.slow
def test_both_processes_end_with_the_same_gradients_to_the_bit(pair: list[dict[str, Any]]):
    first, second = pair
    for family in NETWORKS:
        assert all(torch.equal(value, second[family][name]) for name, value in first[family].items())


@pytest.mark.slow
def test_a_run_of_two_processes_ends_with_the_same_weights_in_both(tmp_path: Path):
    first, second = together(tmp_path, "train")
    assert first["finished"] and second["finished"] and first["steps"] == 4
    assert first["before"].keys() == first["state"].keys() == second["state"].keys()
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert any(not torch.equal(value, first["before"][name]) for name, value in first["state"].items())


@pytest.mark.slow
def test_processes_agree_on_means_and_flags_and_one_leads(pair: list[dict[str, Any]]):
    assert [process["mean"] for process in pair] == [5.0, 5.0]
    assert [process["any"] for process in pair] == [True, True]
    assert [process["none"] for process in pair] == [False, False]
    assert [process["leads"] for process in pair] == [True, False]


def test_alone_nothing_is_wrapped_or_averaged():
    module = nn.Conv2d(3, 3, 1)
    with join("cpu", sync_batch_norm=True, variables={}) as world:
        assert world.wrap(module) is module
        assert (world.rank, world.size, world.leads) == (0, 1, True)
        assert world.mean(3.5) == 3.5
        assert (world.broadcast_flag(True), world.broadcast_flag(False)) == (True, False)
        world.barrier()


def test_synchronised_normalisation_keeps_names_numbers_and_parameters():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, 1e-3, momentum=0.03))
    before = dict(module.named_parameters())
    norm = synchronised(module)[1]
    assert isinstance(norm, SynchronisedBatchNorm)
    assert (norm.eps, norm.momentum) == (1e-3, 0.03)
    assert all(before[name] is parameter for name, parameter in module.named_parameters())
    images = torch.rand(2, 3, 5, 5)
    plain = nn.BatchNorm2d(4, 1e-3)
    torch.testing.assert_close(module.eval()(images), plain.eval()(module[0](images)))


def test_incomplete_variables_of_torchrun_are_one_clear_line():
    line = "WORLD_SIZE is set but RANK is not: start several processes with torchrun"
    with pytest.raises(UserError, match=line), join("cpu", variables={"WORLD_SIZE": "2"}):
        pass


def test_more_processes_than_gpus_and_a_single_gpu_for_several_are_one_clear_line():
    several = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.raises(UserError, match="--on cuda:0 is one GPU"), join("cuda:0", variables=several):
        pass
    if torch.cuda.device_count() == 0:
        line = "0 GPUs, torchrun has started more processes"
        with pytest.raises(UserError, match=line), join("cuda", variables=several):
            pass
