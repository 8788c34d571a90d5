"""The ONNX graphs of a bundle: builders, verification and the registry."""
