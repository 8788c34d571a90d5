"""Products of small matrices in compiled code."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="compiled steps need the extra `fast`")

from cflightning.kernels.matmul import HIGH, WIDE, multiply


@pytest.mark.parametrize(("m", "n", "k"), [(HIGH, WIDE, 1), (3 * HIGH, 2 * WIDE, 37), (HIGH, WIDE, 0)])
def test_products_equal_those_of_numpy(m, n, k):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n + 3)).astype(np.float32)
    for flat, down, along in ((a.ravel(), k, 1), (a.T.ravel(), 1, m)):
        c = np.full((m, n + 2), 7, np.float32)
        multiply(flat, down, along, b.ravel(), n + 3, c.reshape(-1), n + 2, m, n, k)
        np.testing.assert_allclose(c[:, :n], a.astype(float) @ b[:, :n], atol=1e-5)
        assert (c[:, n:] == 7).all()
