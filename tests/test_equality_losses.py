"""Overlaps of boxes and the focal loss against torchvision's.

torchvision's wheels are built for CUDA and their operators do not load beside a CPU build of torch, so the package
itself cannot be imported everywhere; its losses are plain Python in files of their own, which are.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from scaler.training.losses.boxes import ciou, giou  # noqa: E402
from scaler.training.losses.focal import focal  # noqa: E402

pytestmark = pytest.mark.slow

ALIAS = "torchvision_in_parts"


@pytest.fixture(scope="module", autouse=True)
def parts() -> Iterator[None]:
    """Make torchvision's files importable under another name, without the package's own start."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torchvision is not installed: .ci/equality.txt")
    root = Path(spec.submodule_search_locations[0])
    for name, folder in ((ALIAS, root), (f"{ALIAS}.ops", root / "ops")):
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == ALIAS]:
        del sys.modules[name]


def theirs(name: str) -> ModuleType:
    return import_module(f"{ALIAS}.ops.{name}")


def pairs(count: int = 500, size: float = 100.0) -> tuple[Tensor, Tensor]:
    """Boxes in double precision: near each other, apart, inside each other, of all aspect ratios."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    first, second = (
        torch.exp(4 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5) for _ in range(2)
    )
    moved = centre + torch.randn(count, 2, generator=generator, dtype=torch.float64) * size / 20
    return torch.cat([centre - first, centre + first], 1), torch.cat([moved - second, moved + second], 1)


@pytest.mark.parametrize(
    ("ours", "module", "function"),
    [
        (giou, "giou_loss", "generalized_box_iou_loss"),
        (ciou, "ciou_loss", "complete_box_iou_loss"),
    ],
)
def test_overlaps_and_their_gradients(ours, module: str, function: str):
    first, second = pairs()
    mine, other = first.clone().requires_grad_(), first.clone().requires_grad_()
    found = 1 - ours(mine, second)
    expected = getattr(theirs(module), function)(other, second)
    assert ((found < 1).float().mean() > 0.2) and (found > 1.2).any()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.5), (0.0, 0.9)])
def test_focal_loss_and_its_gradient(gamma: float, alpha: float):
    generator = torch.Generator().manual_seed(2)
    logits = 5 * torch.randn(400, 7, generator=generator, dtype=torch.float64)
    truth = (torch.rand(400, 7, generator=generator) < 0.3).double()
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = focal(mine, truth, gamma=gamma, alpha=alpha)
    expected = theirs("focal_loss").sigmoid_focal_loss(other, truth, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)
