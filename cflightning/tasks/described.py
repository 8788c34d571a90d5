"""Optimisers and schedules made from descriptions, which is how checkpoints and YAML hold them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cflightning.errors import ConfigError


def make_described(description: Mapping[str, Any], name: str, kinds: Any, first: Any) -> Any:
    """The object that a description names; of imported classes of the right kind, for a checkpoint may describe it."""
    module, _, kind = str(description.get("class_path", "")).rpartition(".")
    found = getattr(sys.modules.get(module), kind, None)
    if not (isinstance(found, type) and issubclass(found, kinds)):
        raise ConfigError(
            f"--{name}: {description.get('class_path')!r} is no imported {name}; import its package first"
        )
    return found(first, **description.get("init_args", {}))
