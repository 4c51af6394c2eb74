"""Export: adapters in PEFT's format, merged models, model cards."""
