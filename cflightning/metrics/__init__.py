"""Metrics: exact on any number of devices."""
