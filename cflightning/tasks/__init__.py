"""LightningModules: networks with their settings, fits that train them, heads that measure them, checkpoints."""
