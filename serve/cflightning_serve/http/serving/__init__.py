"""State of the server: the loaded bundle, metrics, drift, executor."""
