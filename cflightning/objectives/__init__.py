"""Objectives: what training minimises, one file each with its settings, defaults, search space and fold-in."""
