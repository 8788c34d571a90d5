"""Networks: plain `torch.nn.Module`s independent of data and training."""
