"""What holds for every test: no network, one thread a process, nothing outside ``tmp_path``."""

from __future__ import annotations

import os

# Before torch or transformers are imported: both read the environment once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis

# A finding has to be seen again: examples follow from the test, and slow machines are fine.
hypothesis.settings.register_profile("lorafit", derandomize=True, deadline=None)
hypothesis.settings.load_profile("lorafit")
