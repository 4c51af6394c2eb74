"""Training speed against peft + Trainer: `python -m benchmarks.speed`."""
