"""What two halves of the tokens agree on, and what only looks as if rows went together."""

from __future__ import annotations

import pytest
import torch

from llama_export.calibration.sums import _SQUARE_BLOCK, DiagonalSum, HalvedSum, SquareSum


def rows_of(count: int, directions: int, noise: float) -> torch.Tensor:
    """Draw rows `[count, 24]` that share some directions, and have a noise of their own."""
    made = torch.Generator().manual_seed(3)
    shared = torch.randn(count, directions, generator=made)
    mixing = torch.randn(directions, 24, generator=torch.Generator().manual_seed(4))
    return shared @ mixing + noise * torch.randn(count, 24, generator=made)


def halved(rows: torch.Tensor, part: int = 40) -> HalvedSum:
    found = HalvedSum(24)
    for some in rows.split(part):
        found.add(some.unsqueeze(0))
    return found


def test_the_sum_is_that_of_all_rows():
    rows = rows_of(200, 3, 1.0)
    found = halved(rows)
    assert found.count == 200
    assert torch.allclose(found.total(), rows.t() @ rows, rtol=1e-5, atol=1e-3)
    diagonal = DiagonalSum(24)
    diagonal.add(rows)
    assert torch.allclose(diagonal.total(), (rows.t() @ rows).diagonal(), rtol=1e-5)
    assert (diagonal.count, diagonal.agreement()) == (200, 0.0)


@pytest.mark.parametrize("width", [5, 24, _SQUARE_BLOCK + 7])
def test_half_of_a_square_is_all_of_it(width):
    rows = torch.randn(64, width, generator=torch.Generator().manual_seed(6))
    found = SquareSum(width)
    for part in rows.view(2, 4, 8, width):
        found.add(part)
    expected = rows.double().t() @ rows.double()
    assert torch.equal(found.total(), found.total().t())
    assert torch.allclose(found.total().double(), expected, rtol=1e-4, atol=1e-4)
    assert found.count == 64


def test_what_is_shared_is_agreed_on_and_what_is_chance_is_not():
    assert halved(rows_of(4000, 3, 0.1)).agreement() > 0.95
    assert halved(rows_of(40, 24, 0.0), 8).agreement() < 0.8
    assert halved(torch.randn(60, 24)).agreement() < 0.4
    assert halved(torch.zeros(60, 24)).agreement() == 0.0


@pytest.mark.parametrize("count", [60, 240, 960])
def test_the_factor_comes_closest_to_endless_tokens(count):
    """No other factor of a grid does much better, on the average of several draws."""
    mixing = torch.randn(6, 24, generator=torch.Generator().manual_seed(4))
    truth = mixing.t() @ mixing + torch.eye(24)
    truth.fill_diagonal_(0.0)
    made = torch.Generator().manual_seed(5)
    grid = torch.linspace(0, 1, 21)
    ours, errors = 0.0, torch.zeros(21)
    for _ in range(30):
        rows = torch.randn(count, 6, generator=made) @ mixing
        rows += torch.randn(count, 24, generator=made)
        found = halved(rows)
        mean = (found.total() / count).fill_diagonal_(0.0)
        ours += float((found.agreement() * mean - truth).square().sum())
        errors += torch.stack([(factor * mean - truth).square().sum() for factor in grid])
    assert ours <= 1.1 * float(errors.min())
