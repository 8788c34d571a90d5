"""Draws from the posterior of a model, whose mean answers better than its one best point."""
