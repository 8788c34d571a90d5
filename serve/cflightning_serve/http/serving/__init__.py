"""State of the server: the loaded bundle and its reloads, metrics, score drift, the executor of long computations."""
