"""What a type checker says of a program that uses lorafit: the settings are typed keywords."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[1]

CONFIG = """
[mypy]
strict = true
mypy_path = {source}
python_version = 3.11
[mypy-transformers.*,torch.*,numpy.*,datasets.*,pydantic.*,rich.*,jinja2.*,typer.*,safetensors.*]
follow_imports = skip
ignore_missing_imports = true
"""

PROGRAM = """
import lorafit

rows = [{"text": "good", "label": "pos"}]
run = lorafit.train("m", rows, r=8, learning_rate=1e-3, label="stars", text=["a", "b"])
run = lorafit.train("m", rows, r="auto", target_modules={"q_lin"}, max_steps=None, budget="20min")
lorafit.demo(seed=1, runs_dir="elsewhere")
lorafit.plan("m", rows, method="dora", train=1)  # wrong: train
lorafit.train("m", rows, r="eight")  # wrong: r
lorafit.train("m", rows, learning_rat=1e-3)  # wrong: learning_rat
lorafit.preview("m", rows, max_length="long")  # wrong: max_length
lorafit.compare("m", rows, engine="quick")  # wrong: engine
lorafit.compare("m", rows, budget=0.5, lora_dropout=0.1)
lorafit.shrink("adapter", r=4, batch_size=8)
answers: list[dict[str, object]] = run.predict(["a text"])
run.append_metrics({})  # wrong: append_metrics
number: float = run.evaluation.tuned["accuracy"].value
"""


WRONG = re.compile(r"# wrong: (\w+)")
ERROR = re.compile(r"program\.py:(\d+): error: (.*)")


def test_a_checker_takes_right_settings_and_refuses_wrong_ones(tmp_path: Path) -> None:
    program, config = tmp_path / "program.py", tmp_path / "mypy.ini"
    program.write_text(PROGRAM)
    config.write_text(CONFIG.format(source=ROOT / "src"))
    cache = ["--cache-dir", str(tmp_path / "cache")]
    found, problems, _ = api.run([str(program), "--config-file", str(config), *cache])
    assert problems == ""
    errors = {int(line): text for line, text in ERROR.findall(found)}
    wrong = {
        number: match[1]
        for number, line in enumerate(PROGRAM.split("\n"), start=1)
        if (match := WRONG.search(line))
    }
    assert errors.keys() == wrong.keys(), found
    assert all(f'"{name}"' in errors[number] for number, name in wrong.items()), found
