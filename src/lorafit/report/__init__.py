"""Report: one self-contained page made from a run folder."""
