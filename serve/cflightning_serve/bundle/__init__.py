"""The bundle format: manifest, files, ONNX sessions, catalogue and trust."""
