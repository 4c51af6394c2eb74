"""Predictions a second, side by side."""
