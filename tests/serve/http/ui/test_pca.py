"""Principal component analysis, reproducible whatever the order of the vectors."""

import numpy as np
import pytest

from cflightning_serve.http.ui.pca import PrincipalPlane


@pytest.fixture
def vectors():
    rng = np.random.default_rng(3)
    return (rng.normal(size=(200, 7)) * [1, 5, 2, 0.5, 3, 0.1, 0] + rng.normal(size=7)).astype(np.float32)


def test_agreement_with_a_singular_value_decomposition(vectors):
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = PrincipalPlane(vectors).project(vectors)
    assert points.shape == (200, 2)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * values[:2]), atol=1e-9)
    assert points[:, 0].var() >= points[:, 1].var()


def test_the_plane_does_not_depend_on_order_and_origin(vectors):
    plane = PrincipalPlane(vectors)
    shuffled = PrincipalPlane(vectors[np.random.default_rng(0).permutation(200)])
    np.testing.assert_allclose(plane.project(vectors), shuffled.project(vectors), atol=1e-9)
    np.testing.assert_allclose(PrincipalPlane(vectors + 4).project(vectors + 4), plane.project(vectors), atol=1e-4)


def test_other_vectors_are_projected_on_the_same_plane(vectors):
    plane = PrincipalPlane(vectors[:150])
    together = plane.project(vectors)
    np.testing.assert_array_equal(plane.project(vectors[150:]), together[150:])
    np.testing.assert_allclose(plane.project(vectors[:150]).mean(0), 0, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (5, 0), (5, 1), (5, 2), (3, 64)])
def test_few_vectors_and_few_dimensions(shape):
    table = np.random.default_rng(1).normal(size=shape)
    points = PrincipalPlane(table).project(table)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    if shape[1] == 1:
        np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(table[:, 0] - table.mean()), atol=1e-12)
        assert not points[:, 1].any()


def test_equal_vectors_become_one_point():
    points = PrincipalPlane(np.ones((6, 3))).project(np.ones((6, 3)))
    assert not points.any()
