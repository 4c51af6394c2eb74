"""What the examples look like to the model, and what of them cannot be learned."""
