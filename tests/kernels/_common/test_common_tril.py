"""Laws of the triangular inverse."""

import pytest
import torch

from palaestra.kernels._common.tril import inverse_unit_lower


@pytest.mark.parametrize("L", [1, 2, 15, 16, 17, 64])
def test_the_inverse_times_the_matrix_is_the_identity(L: int) -> None:
    A = torch.randn(3, 2, L, L, dtype=torch.float64).tril(-1) / max(1, L) ** 0.5
    identity = torch.eye(L, dtype=A.dtype)
    X = inverse_unit_lower(A)
    torch.testing.assert_close(X @ (identity + A), identity.expand_as(A), rtol=0, atol=1e-12)
    assert torch.equal(X, X.tril())


def test_gradients_equal_finite_differences() -> None:
    A = torch.randn(2, 5, 5, dtype=torch.float64).tril(-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: inverse_unit_lower(A.tril(-1)), A)


def test_entries_on_and_above_the_diagonal_are_not_read() -> None:
    A = torch.randn(2, 20, 20, dtype=torch.float64)
    other = A.tril(-1) + torch.full_like(A, torch.nan).triu()
    assert torch.equal(inverse_unit_lower(other), inverse_unit_lower(A.tril(-1)))


def test_a_matrix_does_not_change_the_inverse_of_another() -> None:
    A = torch.randn(6, 32, 32).tril(-1)
    assert torch.equal(inverse_unit_lower(A)[2:3], inverse_unit_lower(A[2:3]))


def test_it_compiles_into_one_graph() -> None:
    A = torch.randn(2, 8, 8, requires_grad=True)
    torch.compile(inverse_unit_lower, fullgraph=True, backend="aot_eager")(A).sum().backward()
    (wanted,) = torch.autograd.grad(inverse_unit_lower(A).sum(), A)
    torch.testing.assert_close(A.grad, wanted)
