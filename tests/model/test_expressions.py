"""Expressions match where `re` matches, and always soon."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafit.errors import ConfigError
from lorafit.model import expressions
from lorafit.model.expressions import ExpressionError, check, fullmatch, names

ATOMS = [
    "a",
    "b",
    ".",
    "[ab]",
    "[^a]",
    r"\.",
    r"\w",
    r"\b",
    r"\B",
    "^",
    "$",
    r"\d",
    r"\W",
    "[a-c.]",
]
REPEATS = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "{0,2}?"]
AROUND = ["(?=%s)", "(?!%s)", "(%s)", "(?:%s)"]


def written() -> st.SearchStrategy[str]:
    """Expressions of all that is matched here."""
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(REPEATS)).map(lambda two: f"(?:{two[0]}){two[1]}"),
            st.tuples(st.sampled_from(AROUND), inner).map(lambda two: two[0] % two[1]),
        ),
        max_leaves=8,
    )


@settings(max_examples=400)
@given(written(), st.lists(st.text("abc.1_", min_size=1, max_size=8), min_size=1, max_size=4))
def test_an_expression_matches_where_re_matches(expression: str, paths: list[str]) -> None:
    for flags in ("", "(?i)"):
        compiled = re.compile(flags + expression)
        tree = expressions.parsed(flags + expression)
        for path in paths:
            walked = len(path) in expressions.Walk(tree.state.flags, path).ends(tree, 0)
            assert walked is (compiled.fullmatch(path) is not None)
            assert fullmatch(flags + expression, path) is walked


@pytest.mark.parametrize(
    ("expression", "path", "matched"),
    [
        (r".*attention\.(q|v)_lin", "bert.layer.0.attention.q_lin", True),
        (r"^(?!.*vision).*(q|k)_proj$", "model.layers.3.q_proj", True),
        (r"^(?!.*vision).*(q|k)_proj$", "model.vision.layers.3.q_proj", False),
        (
            r"(?:.*\.)*layers\.(?:[02468]|1\d)\.(?:\w+\.)+o_proj",
            "model.layers.14.self.o_proj",
            True,
        ),
        (
            r"(?:.*\.)*layers\.(?:[02468]|1\d)\.(?:\w+\.)+o_proj",
            "model.layers.3.self.o_proj",
            False,
        ),
        (r"(?i).*Q_LIN", "a.q_lin", True),
        (r"(?<=a)b", "b", False),
        (r"a(?<=a)b", "ab", True),
    ],
)
def test_what_selections_use(expression: str, path: str, matched: bool) -> None:
    assert fullmatch(expression, path) is matched
    assert (re.fullmatch(expression, path) is not None) is matched


def test_a_pattern_names_the_last_parts_of_a_path() -> None:
    assert names("q_lin", "a.b.q_lin")
    assert names("b.q_lin", "a.b.q_lin")
    assert names("q_lin|k_lin", "a.k_lin")
    assert not names("q_lin", "a.xq_lin")
    assert not names("a", "a.q_lin")


@pytest.mark.parametrize(
    "bomb",
    ["([a-z.0-9]+)+!", "(.*)*!", "(a|a)*b", "((a+)+)+!", "(a|a)" * 40 + "!", "(.*){1,50000}!"],
)
def test_a_bomb_does_not_go_off(bomb: str) -> None:
    began = time.monotonic()
    for path in ("a" * 90, "distilbert.transformer.layer.0.attention.q_lin"):
        assert not names(bomb, path)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(", "not a regular expression"),
        ("(a)\\1", "back references"),
        ("(a)?(?(1)b|c)", "conditions"),
        ("(?>a+)b", "atomic groups"),
        ("a++b", "possessive repeats"),
        ("(?i:a)b", "flags for a part"),
        ("a" * 6_000, "longest"),
        ("(" * 400 + "a" + ")" * 400 + "(b*)*", "nested|recursion"),
    ],
)
def test_what_is_not_matched_is_refused(expression: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        fullmatch(expression, "a" * 3)


def test_what_takes_too_long_is_refused() -> None:
    with pytest.raises(ExpressionError, match="too long"):
        fullmatch("((.*)*.?)*" * 20 + "!", "a" * 500)


def test_too_many_expressions_of_one_adapter_are_refused() -> None:
    check([f"layer.{number}" for number in range(5_000)])
    check([f"layer.{number}+" for number in range(64)])
    with pytest.raises(ConfigError, match="65 regular expressions"):
        check([f"layer.{number}+" for number in range(65)])
