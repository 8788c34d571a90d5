"""Requests to the graphs of a bundle: one module for each question, from validated arguments to typed results."""
