"""LightningModules: a network, heads that train and measure it, checkpoints."""
