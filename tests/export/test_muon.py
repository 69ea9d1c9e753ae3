"""Muon against singular value decomposition, and against torch's own for matrices."""

import numpy as np
import pytest
import torch

from labelmint_export.gan import muon as module
from labelmint_export.gan.muon import Muon, orthogonalize

SHAPES = ((12, 7, 3, 3), (24, 24), (5, 40), (40, 5), (3, 2, 3, 3))


def make_parameters() -> list[torch.nn.Parameter]:
    source = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(shape, generator=source)) for shape in SHAPES]


def give_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    source = torch.Generator().manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=source)


def test_singular_values_go_through_the_polynomial_and_singular_vectors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fast_dtype", lambda device: torch.float32)
    matrices = [parameter.detach().flatten(1) for parameter in make_parameters()]
    for before, after in zip(matrices, orthogonalize(matrices), strict=True):
        left, values, right = np.linalg.svd(before.double().numpy(), full_matrices=False)
        values = values / np.linalg.norm(values)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        np.testing.assert_allclose(after.numpy(), (left * values) @ right, rtol=0, atol=1e-4)


def test_steps_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fast_dtype", lambda device: torch.bfloat16)
    ours, begin = make_parameters(), make_parameters()
    theirs = [torch.nn.Parameter(parameter.detach().flatten(1).clone()) for parameter in begin]
    mine = Muon(ours, 0.01)
    reference = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")  # 0.2 * 0.05
    for step in range(4):
        give_gradients(ours, step)
        for parameter, matrix in zip(ours, theirs, strict=True):
            assert parameter.grad is not None
            matrix.grad = parameter.grad.flatten(1)
        mine.step()
        reference.step()  # type: ignore[no-untyped-call]  # torch's method is untyped
    for parameter, matrix, old in zip(ours, theirs, begin, strict=True):
        moved, expected = (parameter - old).detach().flatten(1), (matrix - old.flatten(1)).detach()
        assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_a_step_has_the_root_mean_square_that_was_asked_for() -> None:
    parameter = torch.nn.Parameter(torch.zeros(64, 16, 3, 3))
    descent = Muon([parameter], 0.25)
    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    descent.step()
    assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.25, rel=0.15)


def test_parameters_without_gradients_stay() -> None:
    parameters = make_parameters()
    before = [parameter.detach().clone() for parameter in parameters]
    descent = Muon(parameters, 0.25)
    descent.step()
    parameters[1].grad = torch.ones(parameters[1].shape)
    descent.step()
    assert [torch.equal(a, b) for a, b in zip(parameters, before, strict=True)] == [True, False, True, True, True]
