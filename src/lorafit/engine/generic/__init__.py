"""The generic tier: any transformers model, its own forward pass, faster parts."""
