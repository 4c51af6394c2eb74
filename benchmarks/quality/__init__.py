"""Accuracy, speed and memory of one whole training, beside peft + Trainer."""
