"""Item vectors -> points of a plane."""

import numpy as np
import numpy.typing as npt

from cflightning_serve.http.errors import not_finite

Floats = npt.NDArray[np.float64]


class Plane:
    """The plane of the two principal components of some vectors: the one that keeps most of their variance.

    Args:
        vectors: float [n, dim]; any n and dim, zero included.

    Raises:
        Refusal: a number is NaN or infinite.
    """

    def __init__(self, vectors: npt.NDArray[np.floating]) -> None:
        table = np.asarray(vectors, np.float64)
        if not np.isfinite(table).all():
            raise not_finite()
        self._mean = table.mean(0) if len(table) else np.zeros(table.shape[1])
        # The right singular vectors of the centred table (Pearson 1901); the small Gram matrix has the same ones.
        centred = table - self._mean
        _, axes = np.linalg.eigh(centred.T @ centred)
        axes = axes[:, ::-1][:, :2]
        # A component's sign is arbitrary: fix it, so that a map looks the same tomorrow.
        largest = np.abs(axes).argmax(0) if len(axes) else np.zeros(0, np.int64)
        signs = np.sign(axes[largest, np.arange(axes.shape[1])])
        self._axes: Floats = np.zeros((len(axes), 2))
        self._axes[:, : axes.shape[1]] = axes * signs

    def project(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Place vectors, those of the constructor or others, on the plane.

        Args:
            vectors: float [n, dim].

        Returns:
            float64 [n, 2]: x along the first component, y along the second, in units of the vectors.

        Raises:
            Refusal: a number is NaN or infinite.
        """
        placed: Floats = (np.asarray(vectors, np.float64) - self._mean) @ self._axes
        if not np.isfinite(placed).all():
            raise not_finite()
        return placed
