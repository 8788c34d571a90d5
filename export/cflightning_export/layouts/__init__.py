"""Layouts of a bundle for other platforms, one module for each."""
