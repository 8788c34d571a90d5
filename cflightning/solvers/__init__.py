"""Rankers that are solved for, without gradients, and the baselines beside them. No Lightning, no tasks."""
