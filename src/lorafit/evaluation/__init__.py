"""Evaluation: scores with intervals, comparisons, and the check of the hand-off."""
