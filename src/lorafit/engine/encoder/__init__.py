"""The fast engine for the BERT family: packed tokens, backward by hand."""
