"""Engines: how a network is trained (autograd, fused CPU and GPU steps, Gibbs sampling, full batches)."""
