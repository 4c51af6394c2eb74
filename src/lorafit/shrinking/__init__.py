"""A smaller rank for a trained adapter, chosen by measurement."""
