"""What goes wrong at the keyboard and in files, and what each command says to it.

One table: `test_bad_input` tries every row, and docs/how-to/check-data.md shows the rows. Write
them there anew with ``python -m tests.cli.bad_input``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "check-data.md"
BEGIN = "<!-- Written by `python -m tests.cli.bad_input`; every row is a test. -->\n"
END = "<!-- end of the table -->\n"


@dataclass(frozen=True)
class Bad:
    """One bad input.

    Attributes:
        typed: The arguments, as typed in the folder that `make_files` fills.
        wrong: What is wrong with them.
        says: A part of the message.
    """

    typed: str
    wrong: str
    says: str

    @property
    def args(self) -> list[str]:
        """The arguments one by one."""
        return shlex.split(self.typed)


_CHAT = [("user", "a film"), ("assistant", "good")]


def _chats(
    role: str,
    content: str,
    chat: Sequence[tuple[str, str | None]],
    at: int = -1,
    other: Sequence[tuple[str, str | None]] = (),
) -> bytes:
    """Twenty conversations as JSON lines, of which one may be another."""
    lines = []
    for number in range(20):
        said = other if number == at else chat
        messages = [{role: r, content: c and c + f" {number}"} for r, c in said]
        lines.append(json.dumps({"id": f"chat {number}", "conversations": messages}))
    return "\n".join(lines).encode()


FILES: dict[str, bytes] = {
    "empty.csv": b"",
    "header.csv": b"text,label\n",
    "short.csv": b"text,label\na film,pos\nalone\n",
    "quote.csv": b'text,label\na film,pos\n"never closed,neg\n',
    "utf16.csv": "text,label\na film,pos\n".encode("utf-16"),
    "broken.jsonl": b'{"text": "a film", "label": "pos"}\n{"text": "a story\n',
    "untagged.conll": b"the DT\nfilm\n",
    "photo.png": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "one-class.csv": b"text,label\n" + b"a film,pos\n" * 20,
    "fractions.csv": b"text,label\n" + b"a film,0.5\na plot,1.5\n" * 10,
    "two.csv": b"text,toxic,insult\n" + b"a film,0,1\na plot,1,2\n" * 10,
    "constant.csv": b"text,score\n" + b"a film,1.5\na plot,1.5\n" * 10,
    "text.csv": b"text\n" + b"a film\n" * 20,
    "both.csv": b"text,toxic,insult,category\n" + b"a film,0,1,x\na plot,1,0,y\n" * 10,
    "nested.jsonl": b'{"text": "a film", "meta": {"stars": 1}}\n' * 20,
    "words.jsonl": b'{"tokens": ["a", "film"], "ner_tags": ["O", "B-X"]}\n' * 20
    + b'{"tokens": ["a", "plot"], "ner_tags": ["O"]}\n',
    "answers.csv": b"q,a\n" + b"".join(b"what is %d,it is %d\n" % (n, n) for n in range(60)),
    "numpy.csv": b"text,label\n" + b"a film,['x' 'y']\na plot,['x']\n" * 10,
    "preferences.jsonl": b'{"prompt": "a film", "chosen": "good", "rejected": "bad"}\n' * 20,
    "objects.jsonl": b'{"instruction": "a film", "output": {"mood": "good"}}\n' * 20,
    "speakers.jsonl": b'{"id": "x", "conversations": [{"speaker": "a", "says": "b"}]}\n' * 20,
    "sharegpt.jsonl": _chats("from", "value", [("human", "a film"), ("gpt", "good")]),
    "narrator.jsonl": _chats("role", "content", _CHAT, at=1, other=[("narrator", "so"), _CHAT[1]]),
    "silent.jsonl": _chats("role", "content", [("user", "a film"), ("system", "so")]),
    "null.jsonl": _chats("role", "content", _CHAT, at=1, other=[_CHAT[0], ("assistant", None)]),
    "system.jsonl": _chats("role", "content", _CHAT, at=2, other=[("system", "so"), *_CHAT]),
    "split/train.csv": b"text,label\n" + b"a film,positive\na plot,negative\n" * 10,
    "split/test.csv": b"text,label\na story,possitive\n",
    "settings.yaml": b"seed: 1\ntrain: {max_steps: 1\n",
    "sentence.txt": b"one text only\n",
    "blank.txt": b"\n",
    "lines.txt": b"a film\n\na plot\n",
    "gaps.csv": b"text,label\na film,pos\n,neg\na plot,neg\n",
    "numbers.csv": b"text,label\n5,pos\n6,neg\n",
    "latin.csv": b"text,label\ncaf\xe9,pos\n",
    "latin.txt": b"a film\ncaf\xe9\n",
    "begun/request.json": b"{}",
    "damaged/compare.json": b'{"arms": ',
    "other/compare.json": b'{"arms": 1}',
}
"""Bad files. Good ones: model, lm, reviews.csv, prompts.jsonl, runs/first (finished) and
runs/stopped (interrupted)."""

TABLE = [
    # The command line itself.
    Bad("trian", "a command that is none", "Did you mean 'train'?"),
    Bad("train", "no model", "which model?"),
    Bad("train model", "no data", "which data?"),
    Bad("train model reviews.csv more", "one argument too many", "unexpected extra argument"),
    Bad("train model reviews.csv --colour red", "a flag that is none", "No such option: --colour"),
    Bad("help trian", "a command that is none", "Did you mean 'train'?"),
    Bad("train model reviews.csv --bs 8", "another tool's flag", "Did you mean --batch-size?"),
    Bad("train model reviews.csv --weight-decay 9", "no flag", "--set train.weight_decay=VALUE"),
    Bad("train model reviews.csv --device meta", "no device", 'there is no device "meta"; choose'),
    Bad("plan model reviews.csv --device cuda:00", "no device", 'there is no device "cuda:00"'),
    Bad(
        "preview model reviews.csv --device cuda:999", "not there", 'the device is "cuda:999", but'
    ),
    Bad(
        "compare model reviews.csv --device cuda:999", "not there", 'the device is "cuda:999", but'
    ),
    Bad("train model reviews.csv --gpus 2", "no such thing", "A GPU is used where torch finds one"),
    Bad("train model reviews.csv --load-in-4bit", "no such thing", "Quantized bases are not"),
    Bad("train model reviews.csv --model lm", "two models", "MODEL is model and --model is lm"),
    Bad("train model reviews.csv --output ..", "no name for a run", "the folder of one run"),
    Bad(
        "train model reviews.csv --lr 1e-3 --learning-rate 2e-3",
        "two values for one setting",
        "both set train.learning_rate",
    ),
    Bad("train model reviews.csv --r", "a flag without its value", "'--r' requires an argument"),
    Bad("train model reviews.csv --r many", "a word for a number", '"many" is neither a whole'),
    Bad("train model reviews.csv --lora-alpha big", "a word for a number", "neither a number nor"),
    # Settings.
    Bad("train model reviews.csv --r 0", "out of range", "adapter.r is 0 (flag --r)"),
    Bad("train model reviews.csv --learning-rate -1", "out of range", "greater than 0"),
    Bad(
        "train model reviews.csv --num-train-epochs nan",
        "no number",
        "it should be a finite number",
    ),
    Bad("train model reviews.csv --budget -1", "out of range", "tune.budget is -1"),
    Bad(
        "train model reviews.csv --prior reviews.csv",
        "a table, no prior",
        'line 1 of "reviews.csv"',
    ),
    Bad("train model reviews.csv --bias some", "none of the choices", "should be 'none', 'all' or"),
    Bad(
        "train model reviews.csv --report-to tensorbord",
        "none of the choices",
        "should be 'tensorboard'",
    ),
    Bad("train model reviews.csv --method lorra", "a method that is none", 'no method "lorra"'),
    Bad("train model reviews.csv --strategy rize", "a strategy that is none", 'no strategy "rize"'),
    Bad("train model reviews.csv --task sequence", "a task that is none", 'no task "sequence"'),
    Bad("train model reviews.csv --set seed", "no value", "KEY=VALUE"),
    Bad("train model reviews.csv --set sed=1", "a setting that is none", 'Did you mean "seed"'),
    Bad("train model reviews.csv --config none.yaml", "no such file", "no configuration file"),
    Bad("train model reviews.csv --config .", "a folder for a file", "is a folder"),
    Bad("train model reviews.csv --config settings.yaml", "broken YAML", "line 3: not valid YAML"),
    Bad("train model reviews.csv --target-modules querry", "no such layer", 'mean "query"?'),
    Bad(
        "plan model reviews.csv --set adapter.layers_to_transform=[9]",
        "no such block",
        "no targets in block 9",
    ),
    Bad(
        "plan model reviews.csv --set adapter.modules_to_save=[hat]",
        "no such module",
        'called "hat"',
    ),
    Bad("train model reviews.csv --max-length 1", "no room for text", "leaves no room for text"),
    Bad("train model reviews.csv --name a/b", "no folder name", "'a/b' is not a run name"),
    Bad("train model reviews.csv --name first", "a run that exists", "never overwritten"),
    Bad(
        "train model reviews.csv --runs-dir reviews.csv",
        "a file for a folder",
        "a file is in the way",
    ),
    # Models.
    Bad("train none/such reviews.csv", "no such model", 'no local folder "none/such"'),
    Bad("train ./none reviews.csv", "no such folder", '"./none" does not exist'),
    Bad("train package:none/model reviews.csv", "no such package", 'package "none"'),
    Bad("train reviews.csv reviews.csv", "data for a model", "Give the folder of the model"),
    Bad(
        "train reviews.csv model",
        "model and data swapped",
        "Did you mean: lorafit train model reviews.csv",
    ),
    Bad(
        "compare reviews.csv owner/model",
        "model and data swapped",
        "Did you mean: lorafit compare owner/model reviews.csv",
    ),
    Bad("preview split model", "model and data swapped", "lorafit preview model split"),
    Bad("train model model", "a model for data", "is the folder of a model"),
    # Data files.
    Bad("preview model none.csv", "no such file", '"none.csv" does not exist'),
    Bad("preview model empty.csv", "0 bytes", '"empty.csv" is empty (0 bytes)'),
    Bad("preview model header.csv", "a header and no rows", "has 0 rows"),
    Bad("preview model short.csv", "a field too few", "line 3 has 1 field, the header has 2"),
    Bad("preview model quote.csv", "a quote left open", "a quote is opened and never closed"),
    Bad("preview model utf16.csv", "UTF-16", "is UTF-16, not UTF-8"),
    Bad("preview model broken.jsonl", "a broken line", "line 2: not JSON"),
    Bad("preview model untagged.conll", "a word without a tag", "line 2: 1 columns"),
    Bad("preview model photo.png", "no table", "is not a data file lorafit reads"),
    # What the data hold.
    Bad("preview model reviews.csv --label labl", "no such column", 'Did you mean "label"?'),
    Bad("preview model reviews.csv --text body", "no such column", 'no column "body"'),
    Bad("preview model reviews.csv --where 'label ='", "no expression", "where label =:"),
    Bad("preview model reviews.csv --where \"label == 'x'\"", "keeps no row", "0 of 60"),
    Bad("train model reviews.csv --where \"label == 'pos'\"", "keeps one class", "one class only"),
    Bad("preview model one-class.csv", "one class", "one class only in the training rows"),
    Bad(
        "preview model fractions.csv --task sequence_classification",
        "no classes",
        "fractions such as 0.5",
    ),
    Bad("preview model two.csv --label toxic --label insult", "a 2 among 0 and 1", "holds '2'"),
    Bad("preview model constant.csv", "the same number everywhere", "one number only"),
    Bad("preview model both.csv", "two columns could be the label", "Choose one with --task"),
    Bad("preview model nested.jsonl --label meta.star", "no such field", 'Did you mean "stars"?'),
    Bad("preview model words.jsonl", "a word without a tag", "row 21 has 2 words"),
    Bad("preview model split", "a label that only test has", 'Did you mean "positive"?'),
    Bad("preview model text.csv", "no labels, and no language model", "no task fits"),
    Bad("preview model answers.csv --label a", "text for classes", "name the prompt too: --text"),
    Bad("preview lm prompts.jsonl --label answer", "no such column", 'no column "answer"'),
    Bad("preview model reviews.csv --test none.csv", "no such file", '"none.csv" does not exist'),
    Bad("preview model latin.csv", "Latin-1", "read it with --encoding cp1252"),
    Bad(
        "preview model reviews.csv --encoding latin-x", "no such encoding", 'no encoding "latin-x"'
    ),
    Bad("preview model numpy.csv", "lists that numpy printed", "look like lists written as text"),
    Bad("preview lm preferences.jsonl", "preferences", "--text prompt --label chosen"),
    Bad("preview lm objects.jsonl", "answers that are objects", 'answers in "output" are objects'),
    Bad("preview lm speakers.jsonl", "conversations in other words", "objects of speaker, says"),
    Bad("preview model sharegpt.jsonl", "a chat for an encoder", "only a language model learns"),
    Bad("preview lm narrator.jsonl", "a role that is none", "conversation 2 of the train split"),
    Bad("preview lm silent.jsonl", "no assistant", "has the role assistant"),
    Bad("preview lm null.jsonl", "a message without text", "message 2, assistant: no text"),
    Bad("preview lm sharegpt.jsonl", "a chat for no chat model", "has no chat template"),
    Bad("preview strict system.jsonl", "a template that refuses", "conversation 3 of the train"),
    # preview and plan say what train would say.
    Bad("preview model reviews.csv --target-modules querry", "no such layer", 'mean "query"?'),
    Bad("plan model reviews.csv --target-modules querry", "no such layer", 'mean "query"?'),
    Bad("plan model", "no data", "which data?"),
    Bad("plan model one-class.csv", "one class", "one class only"),
    Bad("plan endless prompts.jsonl", "no end token", "the tokenizer has no end token"),
    Bad("train endless prompts.jsonl", "no end token", "the tokenizer has no end token"),
    Bad("train lm prompts.jsonl --max-length 6", "answers are cut off", "the answer is cut off"),
    Bad("train lm prompts.jsonl --max-length 4", "no answer is left", "nothing is left to be"),
    Bad("preview", "no model", "which model?"),
    # Resuming.
    Bad("train --resume none", "no such run", 'no run "none"; "runs" has'),
    Bad("train --resume frist", "a run's name misspelt", 'Did you mean "first"?'),
    Bad("train --resume model", "a folder that is no run", '"model" is not a run folder'),
    Bad("train --resume runs/first", "a finished run", "is finished"),
    Bad(
        "train --resume runs/stopped --r 3", "other settings", "the run's own settings, but got --r"
    ),
    Bad("train model reviews.csv --resume runs/stopped", "model and data", "but got MODEL, DATA"),
    # Runs.
    Bad("evaluate", "no run", "Missing argument 'RUN'"),
    Bad("evaluate none", "no such run", 'no run "none"'),
    Bad("evaluate runs/first/adapter", "the adapter's folder", 'the folder above: "runs/first"'),
    Bad("evaluate runs/stopped", "a run without an adapter", "has no adapter yet"),
    Bad("evaluate runs/first none.csv", "no such data", '"none.csv" does not exist'),
    Bad("evaluate runs/first prompts.jsonl", "other columns", 'no column "text"'),
    Bad("evaluate runs/first latin.csv", "Latin-1", "read it with --encoding cp1252"),
    Bad(
        "evaluate runs/first latin.csv --encoding latin-x",
        "an encoding that is none",
        'no encoding "latin-x"',
    ),
    Bad("evaluate runs/first --encoding cp1252", "the run's own data", "is for other DATA"),
    Bad("predict", "no run", "Missing argument 'RUN'"),
    Bad("predict runs/first", "no text", "no text to predict"),
    Bad("predict none text", "no such run", 'no run "none"'),
    Bad("predict runs/stopped text", "a run without an adapter", "has no adapter yet"),
    Bad("predict runs/first ' '", "an empty text", "text 1 of 1 is empty"),
    Bad("predict runs/first a --file lines.txt", "texts from two places", "not from both"),
    Bad("predict runs/first --file none.txt", "no such file", 'cannot read "none.txt"'),
    Bad("predict runs/first --file empty.csv", "an empty file", '"empty.csv" is empty'),
    Bad("predict runs/first --file blank.txt", "an empty file", '"blank.txt" is empty'),
    Bad("predict runs/first --file lines.txt", "an empty line", "has an empty line, line 2"),
    Bad("predict runs/first --file latin.txt", "Latin-1", "is not UTF-8 text (line 2)"),
    Bad("predict runs/first --file none.csv", "no such file", 'cannot read "none.csv"'),
    Bad("predict runs/first --file answers.csv", "other columns", 'no column "text", which is the'),
    Bad("predict runs/first --file gaps.csv", "a row without text", "text 2 of 3 is empty"),
    Bad("predict runs/first --file numbers.csv", "numbers for text", "text 1 of 2 is a number (5)"),
    Bad("predict runs/first --file latin.csv", "Latin-1", "--encoding cp1252"),
    Bad(
        "predict runs/first --file latin.csv --encoding latin-x",
        "an encoding that is none",
        'no encoding "latin-x"',
    ),
    Bad("predict runs/first reviews.csv text", "a file among texts", "--file reviews.csv, alone"),
    Bad("predict runs/first text --out a.xlsx", "a format that is none", '"a.xlsx"'),
    Bad("predict runs/first text --out reviews.csv", "a file that exists", "is not overwritten"),
    Bad("merge runs/first", "nowhere to write", "Missing argument 'OUT'"),
    Bad("merge none out", "no such run", 'no run "none"'),
    Bad("merge runs/first reviews.csv", "a file for a folder", '"reviews.csv" is a file'),
    Bad("merge runs/first model", "a folder in use", '"model" is not empty'),
    Bad("merge runs/first reviews.csv/out", "a folder in a file", 'cannot write "reviews.csv/out"'),
    Bad("merge runs/first out.gguf", "a file's name for a folder", 'such as "out"'),
    Bad("merge runs/stopped out", "a run without an adapter", "has no adapter yet"),
    Bad("runs --runs-dir none", "no such folder", 'no folder "none"'),
    Bad("runs --runs-dir reviews.csv", "a file for a folder", '"reviews.csv" is a file'),
    # Pages.
    Bad("report", "no run", "Missing argument 'RUN'"),
    Bad("report none", "no such run", 'no run "none"; "runs" has'),
    Bad("report model", "a folder that is no run", '"model" is not a run folder'),
    Bad("report runs/first/adapter", "the adapter's folder", 'the folder above: "runs/first"'),
    Bad("report begun", "a comparison without a result", 'comparison in "begun" is not finished'),
    Bad("report damaged", "broken JSON", 'cannot read "damaged/compare.json"'),
    Bad("report other", "JSON of another kind", "is not what lorafit compare writes"),
    Bad("open none", "no such run", 'no run "none"; "runs" has'),
    Bad("open reviews.csv", "a file for a run", 'no run "reviews.csv"'),
    # Shrinking.
    Bad("shrink none", "no such adapter", 'no folder "none"'),
    Bad("shrink model --r 1", "a folder without an adapter", "has no adapter_config.json"),
    Bad("shrink runs/stopped --r 1", "a run without an adapter", "has no adapter yet"),
    Bad("shrink runs/first", "auto without data", "Pass data, or name a rank: 2, 1"),
    Bad("shrink runs/first --r many", "a word for a number", '--r is "many"'),
    Bad("shrink runs/first --r 3", "more than there is", 'should be "auto" or 1 to 2'),
    Bad("shrink runs/first --r 0", "out of range", 'should be "auto" or 1 to 2'),
    Bad("shrink runs/first --r 1 --out model", "a folder in use", '"model" is not empty'),
    Bad("shrink runs/first --data none.csv", "no such data", '"none.csv" does not exist'),
    Bad("shrink runs/first --data prompts.jsonl", "other columns", 'no column "text"'),
    Bad("shrink runs/first --data reviews.csv --retrain-steps -1", "out of range", "0 or more"),
    # Comparing.
    Bad("compare model reviews.csv --budget -1", "out of range", "budget is -1"),
    Bad("compare model reviews.csv --seeds 0", "out of range", "seeds is 0"),
    Bad("compare model reviews.csv --methods lorra", "a method that is none", 'mean "lora"'),
    Bad("compare model reviews.csv --methods ''", "no method", "which methods?"),
    Bad("compare model reviews.csv --learning-rate 0.1", "what compare finds", "takes no train."),
    Bad(
        "compare model reviews.csv --general-text none.txt",
        "no such file",
        'the general text "none.txt"',
    ),
    Bad("compare model reviews.csv --general-text sentence.txt", "one text", "two or more"),
    Bad(
        "compare model reviews.csv --target-modules q --methods lora", "no such layer", 'called "q"'
    ),
    Bad("compare endless prompts.jsonl --methods lora", "no end token", "has no end token"),
    Bad("compare model one-class.csv", "one class", "one class only"),
    # The rest.
    Bad("demo --seed x", "a word for a number", "Invalid value for '--seed'"),
    Bad("demo --seed -1", "out of range", "seed is -1"),
    Bad("demo --runs-dir reviews.csv", "a file for a folder", "a file is in the way"),
    Bad("doctor --runs-dir", "a flag without its value", "requires an argument"),
    Bad("version now", "an argument too many", "unexpected extra argument"),
]


def make_files(folder: Path) -> None:
    """Fills a folder with the models and files that the table names, but for the runs."""
    from tests import tiny_text

    tiny_text.save_base(folder / "model")
    tiny_text.save_language_model(folder / "lm")
    strict = tiny_text.save_language_model(folder / "strict")
    tokenizer = tiny_text.gpt2_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role')"
        " }}{% endif %}the {{ m['content'] }} <|endoftext|> {% endfor %}"
        "{% if add_generation_prompt %}the {% endif %}"
    )
    tokenizer.save_pretrained(strict)
    endless = tiny_text.save_language_model(folder / "endless")
    tokenizer = tiny_text.gpt2_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = None, "<unk>"
    tokenizer.save_pretrained(endless)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((endless / name).read_text("utf-8"))
        (endless / name).write_text(json.dumps(settings | {"eos_token_id": None}), "utf-8")
    tiny_text.rows(60).to_csv(folder / "reviews.csv", index=False)
    tiny_text.prompts(60).to_json(folder / "prompts.jsonl")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def lines() -> Iterator[str]:
    """The table as markdown."""
    yield "| `lorafit ...` | what is wrong | what is said (a part of it) |\n|---|---|---|\n"
    for bad in TABLE:
        cells = (f"`{bad.typed}`", bad.wrong, f"`{bad.says}`")
        yield "| {} |\n".format(" | ".join(cell.replace("|", r"\|") for cell in cells))


def document(page: str) -> str:
    """The page with the table as it is now."""
    pattern = re.escape(BEGIN) + r".*?" + re.escape(END)
    return re.sub(pattern, lambda _: BEGIN + "".join(lines()) + END, page, flags=re.DOTALL)


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8")), "utf-8")
