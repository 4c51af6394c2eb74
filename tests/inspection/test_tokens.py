import lorafit
from lorafit.console import show_preview
from tests import tiny_text

ROWS = [
    {
        "tokens": ["a", "great", "film", *["story"] * more],
        "ner_tags": ["O", "B-X", "I-X"] + ["O"] * more,
    }
    for more in range(8)
]


def test_tokens_are_shown_as_trained_masked_cut_or_padding(tmp_path, capsys):
    base = tiny_text.save_base(tmp_path / "base")
    found = lorafit.preview(base, ROWS, max_length=8)
    assert found.task == "token_classification"
    assert found.truth is not None
    assert found.truth.problems == ()
    for example in found.token_examples:
        states = [state for _, state in example.pieces]
        assert states[:3] == ["masked", "trained", "masked"]
        assert "cut" not in states or example.tokens == 8
        assert example.tokens + example.padding == max(e.tokens for e in found.token_examples)
    show_preview(found)
    shown = capsys.readouterr().out
    assert "[masked] [CLS] [trained] a great film" in shown
    assert "Nothing stops training on this data." in shown


def test_the_classes_of_texts_are_those_that_are_encoded(tmp_path, capsys):
    base = tiny_text.save_base(tmp_path / "base")
    rows = tiny_text.splits()
    found = lorafit.preview(base, rows)
    assert found.truth is not None
    assert found.truth.splits["train"].labels == {"neg": 6, "pos": 6}
    show_preview(found)
    assert "Nothing stops training" in capsys.readouterr().out
