"""Tags of words: aligned with tokens, read as spans, scored."""
