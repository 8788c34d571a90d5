"""Inference from a cflightning bundle: scores, recommendations, similar items.

``Scorer.load(bundle)`` is the whole interface. The package needs numpy and onnxruntime only, and imports onnxruntime
when the first bundle is opened. ``serve/BUNDLE.md`` specifies the format of a bundle.
"""

from cflightning_serve.bundle.catalogue import Catalogue
from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.errors import BundleError, InputError, ServeError, UnknownIdError, UnsupportedError
from cflightning_serve.inference.bulk import TopKLists
from cflightning_serve.inference.explain import Explanation
from cflightning_serve.inference.fold_in import FoldIn, FoldInItem
from cflightning_serve.inference.results import TopK, TopKUsers
from cflightning_serve.scorer import Scorer

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Catalogue",
    "Explanation",
    "FoldIn",
    "FoldInItem",
    "InputError",
    "Manifest",
    "Scorer",
    "ServeError",
    "TopK",
    "TopKLists",
    "TopKUsers",
    "UnknownIdError",
    "UnsupportedError",
    "__version__",
]
