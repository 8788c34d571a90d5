"""Principal component analysis of item vectors, for the map."""

import numpy as np
import numpy.typing as npt

from cflightning_serve.http.errors import not_finite_error

Floats = npt.NDArray[np.float64]


class PrincipalPlane:
    """The plane of the two principal components of some vectors, which keeps most of their variance (Pearson 1901).

    Args:
        vectors: float [n, dim]; n and dim may be 0.

    Raises:
        ApiError: a number is NaN or infinite.
    """

    def __init__(self, vectors: npt.NDArray[np.floating]) -> None:
        table = np.asarray(vectors, np.float64)
        if not np.isfinite(table).all():
            raise not_finite_error()
        self._mean = table.mean(0) if len(table) else np.zeros(table.shape[1])
        # The right singular vectors of the centred table are the eigenvectors of its much smaller Gram matrix.
        centred = table - self._mean
        _, components = np.linalg.eigh(centred.T @ centred)
        components = components[:, ::-1][:, :2]
        # The sign of a component is arbitrary: its largest entry becomes positive, so that the map is reproducible.
        largest = np.abs(components).argmax(0) if len(components) else np.zeros(0, np.int64)
        signs = np.sign(components[largest, np.arange(components.shape[1])])
        self._components: Floats = np.zeros((len(components), 2))
        self._components[:, : components.shape[1]] = components * signs

    def project(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Project vectors on the plane.

        Args:
            vectors: float [n, dim], those of the constructor or others.

        Returns:
            float64 [n, 2]: coordinates along the first and second component, in units of the vectors.

        Raises:
            ApiError: a number is NaN or infinite.
        """
        points: Floats = (np.asarray(vectors, np.float64) - self._mean) @ self._components
        if not np.isfinite(points).all():
            raise not_finite_error()
        return points
