"""What many classes cost: time, peak memory and the sizes of what is written.

``python -m benchmarks.limits [CLASSES...]`` trains a tiny BERT (two layers, 32 wide) for five steps
on three rows of each class, each number of classes in a process of its own, and writes
``benchmarks/limits/results.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = 3
"""Of each class: the least of which none is lost to a split."""
STEPS = 5
CLASSES = (100, 1_000, 5_000)
RESULTS = Path(__file__).with_name("results.md")


def child(classes: int, folder: Path) -> dict[str, Any]:
    """Trains once, and measures."""
    import torch
    import transformers

    import lorafit
    from lorafit.machine.memory import peak_rss_bytes
    from lorafit.testing.words import bert_tokenizer

    torch.manual_seed(0)
    config: Any = transformers.BertConfig
    base = config(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    transformers.BertModel(base).save_pretrained(folder / "model")
    bert_tokenizer(folder).save_pretrained(folder / "model")
    rows = [
        {"text": f"a great film {c % 97} {r}", "label": f"class {c:05d}"}
        for r in range(ROWS)
        for c in range(classes)
    ]
    imported = peak_rss_bytes()
    started = time.perf_counter()
    run = lorafit.train(
        str(folder / "model"), rows, runs_dir=str(folder / "runs"), max_steps=STEPS,
        per_device_train_batch_size=8, max_length=16, r=2, learning_rate=1e-3, strategy="none",
        progress=False,
    )  # fmt: skip
    time_s = time.perf_counter() - started
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lorafit", "runs", "--runs-dir", str(folder / "runs")],
        check=True,
        capture_output=True,
    )
    sizes = {
        name: (run.path / name).stat().st_size
        for name in ("report.html", "eval.json", "predictions.parquet")
        if (run.path / name).is_file()
    }
    return {
        "classes": classes,
        "time_s": time_s,
        "peak_mb": peak_rss_bytes() / 1e6,
        "imported_mb": imported / 1e6,
        "listing_s": time.perf_counter() - started,
        **sizes,
    }


def table(found: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Many classes",
        "",
        f"`python -m benchmarks.limits`: a tiny BERT, {ROWS} rows a class, {STEPS} steps, one",
        "thread of a machine that other work shares (so times are upper bounds).",
        "",
        "| classes | train | peak memory | of it imports | `report.html` | `eval.json` | "
        "`predictions.parquet` | `lorafit runs` |",
        "|" + "---:|" * 8,
    ]
    lines += [
        f"| {one['classes']:,} | {one['time_s']:.0f} s | {one['peak_mb']:,.0f} MB "
        f"| {one['imported_mb']:,.0f} MB | {one['report.html'] / 1e6:.2f} MB "
        f"| {one['eval.json'] / 1e6:.2f} MB | {one.get('predictions.parquet', 0) / 1e6:.1f} MB "
        f"| {one['listing_s']:.1f} s |"
        for one in found
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures each number of classes in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", type=int, nargs="*", default=list(CLASSES))
    parser.add_argument("--child", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.child:
            print(json.dumps(child(asked.child, Path(folder))))
            return
    found = []
    for classes in asked.classes:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.limits", "--child", str(classes)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    RESULTS.write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
