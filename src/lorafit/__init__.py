"""lorafit: LoRA fine-tuning of Hugging Face models, configured by measurement."""
