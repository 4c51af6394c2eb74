"""Which columns hold the text and the answer."""
