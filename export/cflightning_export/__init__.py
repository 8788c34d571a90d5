"""From a checkpoint to a bundle: ONNX graphs with raw ids, checked against torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cflightning_export.bundle import export_bundle

__all__ = ["export_bundle"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` does not wait for torch."""
    if name == "export_bundle":
        from cflightning_export.bundle import export_bundle

        return export_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
