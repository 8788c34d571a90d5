"""Engines, which train networks in place of autograd: fused CPU and GPU steps, Gibbs sampling, solvers."""
