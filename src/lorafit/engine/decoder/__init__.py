"""The fast engine for the Llama family: packed tokens, backward by hand."""
