"""Export of a checkpoint to a bundle: ONNX graphs over ids, verified against torch."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cflightning.errors import ExportError

if TYPE_CHECKING:
    from cflightning_export.bundle import export_bundle

__all__ = ["export_bundle"]

if find_spec("cflightning_serve") is None:
    raise ExportError("export: needs the package cflightning-serve, which reads bundles; pip install ./serve")


def __getattr__(name: str) -> object:
    """Import on first use: the command's ``--help`` does not wait for torch."""
    if name == "export_bundle":
        from cflightning_export.bundle import export_bundle

        return export_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
