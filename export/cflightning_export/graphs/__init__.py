"""The ONNX graphs of a bundle, one module per graph or building block."""
