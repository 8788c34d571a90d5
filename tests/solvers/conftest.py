"""Fixtures of the solvers' tests."""

import sys

import pytest

from cflightning.kernels import availability


@pytest.fixture(params=["compiled", "plain"])
def implementation(request, monkeypatch):
    """Run a test with the compiled kernels and, as if numba were not installed, without."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled kernels need the extra `fast`")
    else:
        monkeypatch.setitem(sys.modules, "numba", None)
    availability.unavailable_reason.cache_clear()
    yield request.param
    availability.unavailable_reason.cache_clear()
