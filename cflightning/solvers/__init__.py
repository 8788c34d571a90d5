"""Closed-form and alternating solvers of ranking models, and the baselines that runs compare with. No Lightning."""
