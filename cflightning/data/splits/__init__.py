"""Splits of a table into training, validation, test and fold-in rows."""
