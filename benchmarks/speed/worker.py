"""One side of one measurement, in its own process: reads a job, prints one JSON line.

    python -m benchmarks.speed.worker '{"case": ..., "side": ..., "data": ..., "steps": ...}'

``side`` is ``ours``, ``trainer`` (peft + `lorafit.Trainer`: the next side with its import line
changed), ``theirs`` (peft + Trainer as users run them) or ``theirs-best`` (with bf16 and
group_by_length). Times are between the ends of optimizer steps; the first steps,
in which kernels are compiled and pages touched, do not count.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from datasets import Dataset
from torch import nn

from benchmarks.speed.cases import CASES, Case, block_parameters, load
from lorafit.machine.memory import peak_rss_bytes

SETTINGS: dict[str, Any] = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.05}
WARM_UP = 15
"""Steps; a third of a short run."""


class Clock:
    """Notes when each step ends and how many real tokens it had.

    ``cpu``: counts the process's own processor time. With one thread it is what an idle
    machine would take, also when other programs run.
    """

    now = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []

    def result(self) -> dict[str, Any]:
        warm_up = min(WARM_UP, len(self.ends) // 3)
        spans = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)][warm_up - 1 :]
        tokens = self.tokens[warm_up : warm_up + len(spans)]
        rates = sorted(n / span for n, span in zip(tokens, spans, strict=True))
        return {
            "tokens_per_s": sum(tokens) / sum(spans),
            "median_tokens_per_s": rates[len(rates) // 2],
            "steps": len(spans),
            "peak_memory_bytes": peak_rss_bytes(),
            "last_losses": self.losses[-10:],
        }


def theirs(
    case: Case, path: str, data: Dataset, steps: int, best: bool, made: type[hf.Trainer]
) -> dict[str, Any]:
    import peft  # here: the other side does not need it

    clock = Clock()
    base = load(case, path)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM" if case.causal else "SEQ_CLS",
        target_modules=list(case.targets),
        modules_to_save=head_of(base, case),
        **SETTINGS,
    )
    model: Any = peft.get_peft_model(base, config)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = pad(rows)
        clock.tokens.append(int(batch["attention_mask"].sum()))
        return batch

    class Ends(hf.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.ends.append(Clock.now())

    quiet: dict[str, Any] = {
        **{"report_to": "none", "save_strategy": "no", "logging_strategy": "no"},
        **{"use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False},
    }
    arguments = hf.TrainingArguments(
        output_dir="unused",
        per_device_train_batch_size=case.batch,
        max_steps=steps,
        learning_rate=1e-3,
        **quiet,
        bf16=best,
        train_sampling_strategy="group_by_length" if best else "random",
    )
    trainer = made(model, arguments, train_dataset=data, data_collator=collate, callbacks=[Ends()])
    loss = trainer.train().training_loss
    clock.losses.append(loss)
    return clock.result()


def ours(
    case: Case, path: str, data: Dataset, steps: int, setting: str, dtype: str
) -> dict[str, Any]:
    from lorafit.adapt import Adapters
    from lorafit.config import Config, DataConfig, ModelConfig, TrainConfig
    from lorafit.engine.choose import Computing, choose_engine
    from lorafit.methods.lora import LoraConfig
    from lorafit.training.learner import Learner
    from lorafit.training.optim import make_optimizer
    from lorafit.training.schedule import make_factor, make_schedule
    from lorafit.training.stepper import Stepper
    from lorafit.training.steps import StepPlan

    clock = Clock()
    model = load(case, path)
    adapters = Adapters(model)
    adapters.add(
        LoraConfig(
            target_modules=set(case.targets),
            modules_to_save=head_of(model, case),
            **SETTINGS,
        )
    )
    wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype)
    task: Any = PlainTask(case.causal)
    tokenizer: Any = PlainTask
    engine = choose_engine(setting, model, task, tokenizer, Computing(dtype=wanted))  # type: ignore[arg-type]
    config = Config(
        model=ModelConfig(name_or_path=case.model),
        data=DataConfig(path="reviews"),
        train=TrainConfig(
            per_device_train_batch_size=case.batch, max_steps=steps, learning_rate=1e-3
        ),
    )
    plan = StepPlan(data, config)
    trainable = adapters.trainable()
    optimizer = make_optimizer(trainable, config.train)
    schedule = make_schedule(optimizer, make_factor(config.train, plan.total_steps), 0)
    learner = Learner(engine, model, task, trainable, data, data)
    stepper = Stepper(learner, optimizer, schedule, config.train)
    model.train()
    for step in plan.steps():
        outcome = stepper.take(step)
        clock.ends.append(Clock.now())
        clock.tokens.append(int(outcome.tokens))
        clock.losses.append(outcome.loss_sum / outcome.units)
    return {**clock.result(), "engine": engine.name, "reason": engine.reason}


def head_of(model: nn.Module, case: Case) -> list[str] | None:
    """The modules that both sides train whole."""
    names = ("pre_classifier", "classifier", "score", "classification_head")
    return None if case.causal else [name for name in names if hasattr(model, name)]


class PlainTask:
    """What an engine calls of a task."""

    pad_token_id = 0

    def __init__(self, causal: bool) -> None:
        self.task_type = "CAUSAL_LM" if causal else "SEQ_CLS"

    def collate(self, rows: list[dict[str, Any]], _: Any) -> dict[str, torch.Tensor]:
        return pad(rows)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    def count(self, rows: list[dict[str, Any]]) -> int:
        return len(rows)

    def units(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(labels), dtype=torch.int64)


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    fill = nn.utils.rnn.pad_sequence
    batch = {
        "input_ids": fill(ids, batch_first=True),
        "attention_mask": fill([torch.ones_like(row) for row in ids], batch_first=True),
    }
    if isinstance(rows[0]["labels"], list):
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {**batch, "labels": fill(labels, batch_first=True, padding_value=-100)}
    return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}


def gemm_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a product with a laid-out weight of a usual size: the best of all we know."""
    from lorafit.engine.product import OneDnnWeight, pack

    weight, x = torch.randn(3072, 768).to(dtype), torch.randn(1024, 768).to(dtype)
    best = float("inf")
    for product in (pack(weight, None), OneDnnWeight(weight, None)):
        for _ in range(30):
            start = Clock.now()
            for _ in range(4):
                product(x)
            best = min(best, (Clock.now() - start) / 4)
    return 2 * 1024 * 768 * 3072 / best


def main() -> None:
    warnings.filterwarnings("ignore")
    hf.logging.set_verbosity_error()
    job = json.loads(sys.argv[1])
    case = CASES[job["case"]]
    if job["clock"] == "cpu":
        Clock.now = staticmethod(time.process_time)
    data = Dataset.from_list(json.loads(Path(job["data"]).read_text()))
    if job["side"] == "ours":
        result = ours(case, job["model"], data, job["steps"], job["engine"], job["dtype"])
        dtype = torch.float32 if "float32" in result["reason"] else torch.bfloat16
        useful = 4 * block_parameters(load(case, job["model"])) * result["median_tokens_per_s"]
        result["gemm_peak_flops"] = gemm_peak(dtype)
        result["share_of_peak"] = useful / result["gemm_peak_flops"]
    else:
        made = hf.Trainer
        if job["side"] == "trainer":
            from lorafit import Trainer as made  # here: the other sides do not need it
        best = job["side"] == "theirs-best"
        result = theirs(case, job["model"], data, job["steps"], best, made)
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
