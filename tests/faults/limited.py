"""A training in a process whose memory has a limit; ``python -m tests.faults.limited FOLDER MIB``.

Everything is imported and tried once before the limit is set, so that it counts what the training
itself takes. Prints what was said, and the parts of the last checkpoint or the error.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any

import psutil
import transformers

import lorafit
from lorafit.errors import LorafitError
from lorafit.testing.words import bert_tokenizer
from lorafit.training import checkpoint
from tests import tiny_text


class Kept(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def main() -> None:
    folder, mib = Path(sys.argv[1]), int(sys.argv[2])
    model = str(folder / "model")
    shape: Any = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = transformers.BertConfig(
        vocab_size=200, intermediate_size=256, max_position_embeddings=512, pad_token_id=0, **shape
    )
    transformers.BertModel(config).save_pretrained(model)
    tokenizer = bert_tokenizer(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(model)
    rows = [{**row, "text": " ".join([row["text"]] * 100)} for row in tiny_text.rows(96)]

    def train(name: str, **settings: Any) -> lorafit.Run:
        given: dict[str, Any] = {
            **{"r": 2, "max_steps": 2, "max_length": 512, "learning_rate": 1e-3, "bf16": False},
            **{"strategy": "none", "engine": "eager", "progress": False, "max_eval_samples": 2},
        }
        runs = str(folder / "runs")
        return lorafit.train(model, rows, name=name, runs_dir=runs, **given | settings)

    train("first", per_device_train_batch_size=1)
    kept = Kept()
    logging.getLogger("lorafit").addHandler(kept)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20), resource.RLIM_INFINITY))
    found: dict[str, Any] = {}
    try:
        run = train("limited", per_device_train_batch_size=64)
        last = checkpoint.latest(run.checkpoints)
        found["parts"] = last and last.state["parts"]
    except LorafitError as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["begun"] = (folder / "runs" / "limited").exists()
    found["said"] = [line for line in kept.said if "memory" in line]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
