"""The compiled kernels, checked, beside twins of them in PyTorch."""
