"""Principal components against numpy's singular values, in blocks and at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlkd.teacher.principal_components import principal_components


@pytest.mark.parametrize("size", [3, 7, 100])
def test_components_are_those_of_the_singular_values(size: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 5)) * [3.0, 2.0, 1.0, 0.5, 0.1] + 1.0)
    found = principal_components(vectors.float().split(size))
    centred = vectors - vectors.mean(dim=0)
    _, singular, expected = np.linalg.svd(centred.numpy(), full_matrices=False)
    np.testing.assert_allclose(found.mean_E, vectors.mean(dim=0), atol=1e-6)
    np.testing.assert_allclose(found.variances_E, singular**2 / 100, rtol=1e-5)
    np.testing.assert_allclose(np.abs((found.directions_EE.numpy() * expected).sum(axis=1)), 1.0, atol=1e-6)
    largest = found.directions_EE.gather(1, found.directions_EE.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()


def test_vectors_that_are_all_alike_have_no_variance() -> None:
    found = principal_components([torch.ones(4, 3)])
    assert found.variances_E.tolist() == [0, 0, 0] and torch.isfinite(found.directions_EE).all()
