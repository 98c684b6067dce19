"""The attacked pictures of self-adversarial training."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from scaler.training.loop.adversarial import adversarial  # noqa: E402


def test_every_pixel_moves_one_step_along_the_sign_and_stays_a_pixel():
    images = torch.tensor([0.5, 0.5, 0.5, 0.1, 0.95])
    gradient = torch.tensor([1e-9, -3.0, 0.0, -1.0, 2.0])
    torch.testing.assert_close(adversarial(images, gradient, 0.2), torch.tensor([0.7, 0.3, 0.5, 0.0, 1.0]))


def test_a_gradient_that_is_no_number_changes_nothing():
    images = torch.full((2,), 0.5)
    assert torch.equal(adversarial(images, torch.full((2,), float("nan")), 0.2), images)


def test_the_loss_grows_and_no_gradient_leads_back():
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Conv2d(3, 4, 3)
    images = torch.rand(2, 3, 8, 8, generator=generator).requires_grad_()
    loss = network(images).square().sum()
    (gradient,) = torch.autograd.grad(loss, images)
    attacked = adversarial(images, gradient, 0.01)
    assert not attacked.requires_grad
    assert network(attacked).square().sum() > loss
    assert (attacked - images).abs().max() <= 0.01 + 1e-6
    assert torch.equal(adversarial(images, gradient, 0), images)
