"""Validation of settings."""

import pytest

from cflightning_serve import InputError
from cflightning_serve.http.settings import Limits, Settings


@pytest.mark.parametrize("limit", ["body", "ids", "k", "seconds", "concurrent", "connections", "cells", "memory"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_above_zero(limit, value):
    with pytest.raises(InputError, match=f"{limit} must be above 0"):
        Limits(**{limit: value})


@pytest.mark.parametrize("host", ["", "http://shop.example", "shop.example:80", "a b", "*shop"])
def test_invalid_host_names_are_refused(tmp_path, host):
    with pytest.raises(InputError, match="allow-host: must be a name"):
        Settings(tmp_path, hosts=(host,))


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "null", "https://*.example"])
def test_invalid_origins_are_refused(tmp_path, origin):
    with pytest.raises(InputError, match="cors-origin: must be like"):
        Settings(tmp_path, origins=(origin,))
