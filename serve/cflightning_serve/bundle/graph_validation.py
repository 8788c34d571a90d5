"""Validation of a bundle's ONNX graphs against the limits of ``serve/BUNDLE.md``, before onnxruntime reads them."""

import math
from collections.abc import Mapping
from pathlib import Path

from cflightning_serve.bundle.files import REMEDY, FileEntry
from cflightning_serve.bundle.onnx_reader import ExternalTensor, read_outline
from cflightning_serve.errors import BundleError

IR_VERSION = 10
"""Newest ONNX IR version of a graph."""
OPERATOR_SETS = {"": 18, "ai.onnx.ml": 4}
"""Domain -> version of the operator sets of a graph; "" is ai.onnx."""
_OPERATORS = """
Abs Add And ArgMax ArgMin Cast CastLike Ceil Clip Compress Concat Constant ConstantOfShape CumSum DequantizeLinear Div
Einsum Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual Identity If IsInf
IsNaN Less LessOrEqual Log Loop MatMul MatMulInteger Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range
Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round
ScatterElements ScatterND Shape Sigmoid Sign Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK
Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(_OPERATORS.split()),
    "ai.onnx.ml": frozenset({"LabelEncoder"}),
}
"""Domain -> operators that a graph may use; "" is ai.onnx."""
NUMPY_TYPES = {
    1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"
}  # fmt: skip
"""ONNX element type of external data -> numpy type."""
MAX_NAMED_OPERATORS = 3
"""Number of forbidden operators that a message names."""
_RUNTIME_OPTIONS = "ort_config"
"""Metadata key of options for onnxruntime, which applies them if an environment variable is set."""


def validate_graph(path: Path, data: bytes, files: Mapping[str, FileEntry]) -> tuple[ExternalTensor, ...]:
    """Check a graph against the limits.

    Args:
        path: the graph's file, for messages.
        data: its bytes.
        files: files of the manifest, the only ones that the graph may refer to.

    Returns:
        The tensors of the graph whose data is in other files of the bundle.

    Raises:
        BundleError: the bytes are not an ONNX model within the limits.
    """

    def check(valid: bool, must: str) -> None:
        if not valid:
            raise BundleError(f"{path}: {must}; {REMEDY}")

    try:
        outline = read_outline(data)
    except ValueError as error:
        raise BundleError(f"{path}: must be an ONNX model within the limits of BUNDLE.md, {error}; {REMEDY}") from error
    check(0 < outline.ir_version <= IR_VERSION, f"must have an IR version up to {IR_VERSION}, has {outline.ir_version}")
    allowed = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in OPERATOR_SETS.items())
    for domain, version in outline.operator_sets.items():
        check(
            version == OPERATOR_SETS.get(domain),
            f"must use the operator sets {allowed}, uses {domain[:60] or 'ai.onnx'!r} {version}",
        )
    forbidden = sorted(
        f"{domain}:{name}"[:60] for domain, name in outline.operators if name not in OPERATORS.get(domain, frozenset())
    )
    names = ", ".join(forbidden[:MAX_NAMED_OPERATORS]) + (", ..." if len(forbidden) > MAX_NAMED_OPERATORS else "")
    check(not forbidden, f"must use operators of BUNDLE.md only, uses {len(forbidden)} others: {names}")
    check(_RUNTIME_OPTIONS not in outline.metadata, f"must not contain options for onnxruntime ({_RUNTIME_OPTIONS})")
    for tensor in outline.external:
        name = f"tensor {tensor.name[:60]!r}"
        entry = files.get(tensor.location)
        if entry is None:
            raise BundleError(
                f"{path}: {name} must be in a file that the manifest lists, is in {tensor.location[:60]!r}; {REMEDY}"
            )
        check(tensor.type in NUMPY_TYPES, f"{name} must be of numbers or bool, is of ONNX type {tensor.type}")
        # Python's integers cannot overflow, whatever lengths the file states.
        length = math.prod(tensor.shape) * int(NUMPY_TYPES[tensor.type][-1].replace("?", "1"))
        fits = tensor.length in (None, length) and tensor.offset + length <= entry.bytes
        check(fits, f"{name} of shape {list(tensor.shape)[:8]} does not fit into its range of {tensor.location}")
    return outline.external
