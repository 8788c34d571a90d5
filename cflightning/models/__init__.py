"""Networks: plain `torch.nn.Module`s that know neither data nor training."""
