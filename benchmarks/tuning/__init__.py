"""Whether the tuner chooses what an exhaustive grid would, and what it costs."""
