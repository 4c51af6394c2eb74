"""Opening is never executing: whatever a folder asks for, only the caller lets code run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from transformers import dynamic_module_utils
from typer.testing import CliRunner

import lorafit
from lorafit import peft
from lorafit.cli import app
from lorafit.comparison import arm
from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, LorafitError, ModelError, RunError
from lorafit.model.load import load_model
from lorafit.run import RunWriter
from lorafit.tasks import tasks
from lorafit.trust import Trust, granted, recorded
from tests.faults import finished
from tests.faults.finished import edit, outcome

TEXTS = ["a great film", "an awful plot"]
KERNEL = "nobody/kernel"

EVIL = """
from pathlib import Path

Path({marker!r}).write_text("ran", encoding="utf-8")

from transformers import BertTokenizerFast, DistilBertConfig, DistilBertForSequenceClassification

class EvilConfig(DistilBertConfig):
    pass

class EvilModel(DistilBertForSequenceClassification):
    config_class = EvilConfig

class EvilTokenizer(BertTokenizerFast):
    pass
"""
"""Code that says it ran, and then does what a model's code does."""

MAPS = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForSequenceClassification": "evil.EvilModel",
}


class Hostile:
    """A run and its base that try to run code wherever a name or a flag of theirs could.

    Attributes:
        run: The run's folder.
        base: The base that its files name.
        marker: The file that the code writes.
    """

    def __init__(self, made: Path, folder: Path) -> None:
        self.marker = folder / "marker"
        self.run = finished.copied(made, folder / "runs" / "first")
        self.base = Path(shutil.copytree(made.parents[1] / "base", folder / "base"))
        self.data = made.parents[1] / "data"
        code = EVIL.format(marker=str(self.marker))
        for place in (folder, self.run, self.run / "adapter", self.base):
            (place / "evil.py").write_text(code, encoding="utf-8")
        for place in (self.base, self.run / "adapter"):
            edit(
                place / "tokenizer_config.json",
                lambda values: values.update(
                    auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]},
                    tokenizer_class="EvilTokenizer",
                ),
            )
        edit(self.base / "config.json", lambda values: values.update(auto_map=MAPS))
        edit(self.run / "adapter" / "adapter_config.json", self._adapter)
        self.record(trust_remote_code=True)

    def _adapter(self, values: dict[str, Any]) -> None:
        values["base_model_name_or_path"] = str(self.base)
        values["auto_mapping"] = {"base_model_class": "EvilModel", "parent_library": "evil"}

    def record(self, **model: Any) -> None:
        """Writes what the run's files say of its base."""
        values = {"name_or_path": str(self.base)} | model
        edit(self.run / "adapter" / "lorafit.json", lambda facts: facts["model"].update(values))
        file = self.run / "config.yaml"
        lines = file.read_text(encoding="utf-8").splitlines()
        for name, value in values.items():
            shown = str(value).lower() if isinstance(value, bool) else value
            lines = [
                f"  {name}: {shown}  # flag" if line.startswith(f"  {name}: ") else line
                for line in lines
            ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def interrupt(self) -> Path:
        """Makes the run one to be resumed."""
        shutil.rmtree(self.run / "adapter")
        RunWriter(self.run).set_status("training")
        return self.run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def hostile(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)  # where evil.py lies, too
    return Hostile(made, tmp_path)


def typed(*words: str) -> Callable[[Hostile], Any]:
    """A command typed in the folder of the runs; what it refuses is an error here, too."""

    def run(hostile: Hostile) -> None:
        args = [word.format(base=hostile.base, data=hostile.data) for word in words]
        result = CliRunner().invoke(app, args, prog_name="lorafit")
        if result.exit_code not in (0, 2):
            raise result.exception or AssertionError(result.output)
        if result.exit_code == 2:
            raise LorafitError(result.output)

    return run


def live() -> Any:
    torch_model = hf.AutoModelForSequenceClassification
    return torch_model.from_pretrained("base", trust_remote_code=False)


def config_of(hostile: Hostile) -> Any:
    return lorafit.Run(hostile.run).config


NEW: dict[str, Any] = {"run.dir": "new"}
QUICK = finished.QUICK | NEW

ENTRIES: dict[str, Callable[[Hostile], Any]] = {
    "load": lambda h: lorafit.load(h.run),
    "load an adapter": lambda h: lorafit.load(h.run / "adapter"),
    "predict": lambda h: lorafit.predict(h.run, TEXTS),
    "evaluate": lambda h: lorafit.evaluate(h.run),
    "evaluate other data": lambda h: lorafit.evaluate(h.run, h.data),
    "merge": lambda h: lorafit.merge(h.run, "merged"),
    "shrink": lambda h: lorafit.shrink(h.run, 2, out="shrunk"),
    "shrink with data": lambda h: lorafit.shrink(h.run, 2, h.data, "shrunk", retrain_steps=0),
    "resume": lambda h: lorafit.train(resume=h.interrupt(), progress=False),
    "train with its settings": lambda h: lorafit.train(config=config_of(h), progress=False),
    "train": lambda h: lorafit.train(h.base, h.data, **QUICK),
    "compare": lambda h: lorafit.compare(
        h.base, h.data, methods=["lora"], seeds=1, **NEW, progress=False
    ),
    "compare with its settings": lambda h: lorafit.compare(config=config_of(h), progress=False),
    "plan": lambda h: lorafit.plan(h.base, h.data, **QUICK),
    "plan with its settings": lambda h: lorafit.plan(config=config_of(h)),
    "preview": lambda h: lorafit.preview(h.base, h.data, **QUICK),
    "preview with its settings": lambda h: lorafit.preview(config=config_of(h)),
    "Run": lambda h: (repr(run := lorafit.Run(h.run)), run._repr_html_(), run.eval, run.origins),
    "Run.predict": lambda h: lorafit.Run(h.run).predict(TEXTS),
    "Run.evaluate": lambda h: lorafit.Run(h.run).evaluate(),
    "Run.report": lambda h: lorafit.Run(h.run).report,
    "peft.PeftModel.from_pretrained": lambda h: peft.PeftModel.from_pretrained(
        live(), h.run / "adapter"
    ),
    "peft.load_adapter": lambda h: peft.get_peft_model(
        live(), peft.LoraConfig(target_modules=["q_lin"])
    ).load_adapter(h.run / "adapter", "second"),
    "peft.PeftConfig": lambda h: peft.PeftConfig.from_pretrained(h.run / "adapter"),
    "peft.AutoPeftModel": lambda h: peft.AutoPeftModel.from_pretrained(h.run / "adapter"),
    "peft.AutoPeftModelForSequenceClassification": lambda h: (
        peft.AutoPeftModelForSequenceClassification.from_pretrained(h.run / "adapter")
    ),
    "lorafit predict": typed("predict", "first", *TEXTS),
    "lorafit evaluate": typed("evaluate", "first"),
    "lorafit merge": typed("merge", "first", "merged"),
    "lorafit shrink": typed("shrink", "first", "--r", "2", "--data", "{data}", "--out", "shrunk"),
    "lorafit train --resume": lambda h: (h.interrupt(), typed("train", "--resume", "first")(h)),
    "lorafit train --config": typed("train", "--config", "runs/first/config.yaml"),
    "lorafit plan --config": typed("plan", "--config", "runs/first/config.yaml"),
    "lorafit preview --config": typed("preview", "--config", "runs/first/config.yaml"),
    "lorafit compare --config": typed("compare", "--config", "runs/first/config.yaml"),
    "lorafit plan": typed("plan", "{base}", "{data}"),
    "lorafit preview": typed("preview", "{base}", "{data}"),
    "lorafit report": typed("report", "first"),
    "lorafit open": typed("open", "first"),
    "lorafit runs": typed("runs"),
    "lorafit runs --json": typed("runs", "--json"),
}
"""Every way to open a folder that someone else made."""

ASKING = [
    *("load", "load an adapter", "predict", "evaluate", "evaluate other data", "merge"),
    *("shrink with data", "resume", "train with its settings", "compare with its settings"),
    *("plan with its settings", "preview with its settings", "Run.predict", "Run.evaluate"),
    *("lorafit predict", "lorafit evaluate", "lorafit merge", "lorafit shrink"),
    *("lorafit train --resume", "lorafit train --config", "lorafit plan --config"),
    *("lorafit preview --config", "lorafit compare --config"),
]
"""Those that need the base, and refuse one that a file says needs its own code."""


@pytest.mark.parametrize("entry", ENTRIES)
def test_opening_a_folder_never_runs_its_code(
    entry: str, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda page: True)
    refused = outcome(lambda: ENTRIES[entry](hostile))
    assert not hostile.marker.exists()
    if entry in ASKING:
        assert refused is not None
        said = " ".join(str(refused).split())
        assert "--trust-remote-code" in said or "trust_remote_code=True" in said
        assert entry.startswith("lorafit") or str(hostile.base) in said


@pytest.mark.parametrize("entry", ["load", "merge", "shrink with data", "peft.AutoPeftModel"])
def test_code_that_no_record_mentions_does_not_run_either(entry: str, hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False)
    outcome(lambda: ENTRIES[entry](hostile))
    assert not hostile.marker.exists()


@pytest.mark.parametrize("entry", ["load", "peft.PeftModel.from_pretrained", "peft.AutoPeftModel"])
def test_code_named_by_an_adapter_does_not_run(entry: str, hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False)
    config = hostile.run / "adapter" / "adapter_config.json"
    edit(config, lambda values: values.update(auto_map=MAPS))
    outcome(lambda: ENTRIES[entry](hostile))
    assert not hostile.marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        lambda h: lorafit.load(h.run, trust_remote_code=True),
        lambda h: lorafit.Run(h.run).predict(TEXTS, trust_remote_code=True),
        lambda h: lorafit.evaluate(h.run, trust_remote_code=True),
        lambda h: lorafit.merge(h.run, "merged", trust_remote_code=True),
        lambda h: lorafit.shrink(
            h.run, 2, h.data, "shrunk", retrain_steps=0, trust_remote_code=True
        ),
        lambda h: lorafit.train(resume=h.interrupt(), progress=False, trust_remote_code=True),
        lambda h: lorafit.plan(config=config_of(h), trust_remote_code=True),
        typed("predict", "first", *TEXTS, "--trust-remote-code"),
        typed("plan", "--config", "runs/first/config.yaml", "--trust-remote-code"),
    ],
    ids=[
        "load",
        "predict",
        "evaluate",
        "merge",
        "shrink",
        "resume",
        "plan",
        "predict -t",
        "plan -t",
    ],
)
def test_code_runs_where_the_caller_says_so(
    call: Callable[[Hostile], Any], hostile: Hostile
) -> None:
    """Which also shows that the folder of these tests would run it."""
    outcome(lambda: call(hostile))
    assert hostile.marker.exists()


@pytest.mark.parametrize(
    "entry", ["load", "merge", "shrink with data", "resume", "lorafit predict"]
)
def test_a_kernel_on_record_is_refused(entry: str, hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False, attn_implementation=KERNEL)
    refused = outcome(lambda: ENTRIES[entry](hostile))
    assert refused is not None
    assert KERNEL in str(refused)
    assert not hostile.marker.exists()


def test_a_kernel_in_the_bases_own_config_is_refused(hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False)
    edit(hostile.base / "config.json", lambda values: values.update(attn_implementation=KERNEL))
    with pytest.raises(ModelError, match=KERNEL):
        lorafit.load(hostile.run)
    with pytest.raises(ModelError, match=KERNEL):
        peft.AutoPeftModel.from_pretrained(hostile.run / "adapter")


@pytest.mark.parametrize("wanted", ["deepgemm", "sonicmoe", KERNEL])
def test_experts_that_would_be_fetched_are_refused(wanted: str, hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False)
    edit(hostile.base / "config.json", lambda values: values.update(experts_implementation=wanted))
    with pytest.raises(ModelError, match=f"asks for the experts '{wanted}'"):
        lorafit.load(hostile.run, attn_implementation="eager")
    with pytest.raises(ModelError, match=f"asks for the experts '{wanted}'"):
        peft.AutoPeftModel.from_pretrained(hostile.run / "adapter")


def test_the_attention_of_a_call_takes_the_place_of_the_one_on_record(hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False, attn_implementation=KERNEL)
    tuned = lorafit.load(hostile.run, attn_implementation="eager")
    assert tuned.model.config._attn_implementation == "eager"


def test_a_built_in_attention_on_record_is_kept(hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False, attn_implementation="eager")
    assert lorafit.load(hostile.run).model.config._attn_implementation == "eager"


def test_a_resumed_run_keeps_its_attention(hostile: Hostile) -> None:
    hostile.record(trust_remote_code=False, attn_implementation="eager")
    with pytest.raises(ConfigError, match="eager"):
        lorafit.train(resume=hostile.interrupt(), attn_implementation="sdpa", progress=False)


def test_a_live_model_needs_no_trust_for_the_base_on_record(hostile: Hostile) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained("base", trust_remote_code=False)
    tuned = lorafit.load(hostile.run, live(), tokenizer)
    assert len(lorafit.predict(tuned, TEXTS)) == 2
    assert not hostile.marker.exists()


@contextmanager
def begun() -> Iterator[list[Path]]:
    """While open, comparisons stop before their first arm; gives their folders."""
    seen: list[Path] = []

    def stop(folder: Path, *_: Any) -> None:
        seen.append(folder)
        raise RunError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorafit.api.run_arms", stop)
        yield seen


def test_a_forged_key_makes_no_comparison(hostile: Hostile) -> None:
    """A folder among the runs says that it is the comparison asked for, with another base."""
    where: dict[str, Any] = {"run.dir": "runs", "run.name": "asked"}

    def compare() -> Any:
        return lorafit.compare(
            *("base", hostile.data),
            **(where | {"methods": ["lora"], "seeds": 1, "max_steps": 1, "progress": False}),
        )

    with begun() as seen:
        outcome(compare)
        edit(
            seen[0] / "request.json",
            lambda values: values["config"]["model"].update(trust_remote_code=True),
        )
        refused = outcome(compare)
    assert refused is not None
    assert len(seen) == 1


def test_an_arm_takes_no_trust_from_its_folder(hostile: Hostile) -> None:
    where: dict[str, Any] = {"run.dir": "runs", "run.name": "asked"}
    with begun() as seen:
        outcome(
            lambda: lorafit.compare(
                *("base", hostile.data),
                **(where | {"methods": ["lora"], "seeds": 1, "max_steps": 1, "progress": False}),
            )
        )
    edit(
        seen[0] / "request.json",
        lambda values: values["config"]["model"].update(trust_remote_code=True),
    )
    with pytest.raises(ModelError, match="trust"):
        arm.Arm(seen[0], "lora", print).train(1e-3, 0, 1)
    assert not hostile.marker.exists()


def test_a_record_that_nobody_granted_is_not_loaded() -> None:
    """Fails closed: whoever forgets to ask the caller gets an error, and not the code."""
    asked = recorded(ModelConfig(name_or_path="x", trust_remote_code=True), "a file")
    task = tasks["sequence_classification"].from_dict(
        {"name": "sequence_classification", "text": ["t"], "label": "l", "label_names": ["a", "b"]}
    )
    with pytest.raises(ModelError, match="a file"):
        load_model(asked, task)
    allowed = granted(asked, Trust(remote_code=True))
    assert allowed.trust_remote_code
    with pytest.raises(ModelError, match=r'there is no local folder "x"|no model "x"'):
        load_model(allowed, task)
