"""Requests to the graphs of a bundle: one module for each graph, from validated arguments to typed results."""
