from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from lorafit.errors import TargetError
from lorafit.model.sites import find_sites, head_modules
from lorafit.model.targets import resolve_modules, select
from tests import tiny


def paths(family: str, **settings: object) -> list[str]:
    model = tiny.classifier(family)
    return [s.path for s in select(model, find_sites(model), **settings)]  # type: ignore[arg-type]


def test_a_list_entry_matches_the_last_parts_of_a_path() -> None:
    assert paths("bert", target_modules=["query"]) == [
        f"bert.encoder.layer.{i}.attention.self.query" for i in range(3)
    ]
    assert paths("bert", target_modules=["attention.output.dense"]) == [
        f"bert.encoder.layer.{i}.attention.output.dense" for i in range(3)
    ]


def test_a_string_is_an_expression_for_the_whole_path() -> None:
    assert paths("bert", target_modules=r".*layer\.1\..*\.(query|value)") == [
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.attention.self.value",
    ]


def test_all_linear_leaves_out_embeddings_and_the_head() -> None:
    found = paths("distilbert", target_modules="all-linear")
    assert len(found) == 18
    assert not any("classifier" in p or "embeddings" in p for p in found)


def test_layers_to_transform_counts_blocks_and_exclude_modules_takes_away() -> None:
    assert paths(
        "gpt2",
        target_modules="all-linear",
        layers_to_transform=[2],
        exclude_modules=["attn.c_proj"],
    ) == ["transformer.h.2.attn.c_attn", "transformer.h.2.mlp.c_fc", "transformer.h.2.mlp.c_proj"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["q_lin", "v_lon"]}, 'called "v_lon"'),
        ({"target_modules": ["v_lon"]}, 'Did you mean "v_lin"'),
        ({"target_modules": ["attention"]}, "not a layer that can be adapted"),
        ({"target_modules": "q_lin"}, "match the whole path"),
        ({"target_modules": "("}, "not a regular expression"),
        ({"target_modules": []}, "empty"),
        ({"target_modules": ["q_lin"], "layers_to_transform": [3]}, "it has 0 to 2"),
        ({"target_modules": ["q_lin"], "layers_to_transform": 7}, "block 7"),
        ({"target_modules": ["q_lin"], "exclude_modules": ["q_linn"]}, 'Did you mean "q_lin"'),
        ({"target_modules": ["q_lin"], "exclude_modules": ["q_lin"]}, "nothing is left"),
        ({"target_modules": ["q_lin"], "layers_pattern": "h", "layers_to_transform": 1}, "stands"),
    ],
)
def test_what_matches_nothing_is_an_error_that_says_what_there_is(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(TargetError) as caught:
        paths("distilbert", **settings)
    assert message in str(caught.value)


def test_the_message_lists_the_layers_with_their_counts() -> None:
    with pytest.raises(TargetError) as caught:
        paths("distilbert", target_modules=["q_proj"])
    assert "q_lin, k_lin, v_lin, out_lin, lin1, lin2 (3 of each)" in str(caught.value)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_roles_and_blocks_are_found_by_structure(family: str) -> None:
    model = tiny.classifier(family)
    sites = find_sites(model)
    inside = [s for s in sites if s.block is not None and s.kind != "embedding"]
    assert {s.role for s in inside} == {"attention", "mlp"}
    assert {s.block for s in inside} == set(range(2 if family == "t5" else 3))
    assert all(s.role == "embedding" for s in sites if s.kind == "embedding")
    assert all(
        s.role == "head" for s in sites if any(s.path.startswith(h) for h in head_modules(model))
    )


def test_with_blocks_chosen_a_whole_path_outside_of_them_stays_a_target() -> None:
    family, settings = "bert", {"layers_to_transform": [1]}
    inside = "bert.encoder.layer.1.attention.self.query"
    assert paths(family, target_modules=["query", "classifier"], **settings) == [
        inside,
        "classifier",
    ]
    whole = ["query", "bert.pooler.dense", "bert.encoder.layer.0.attention.self.key"]
    assert set(paths(family, target_modules=whole, **settings)) == {inside, *whole[1:]}
    for name in ("pooler.dense", "word_embeddings"):
        with pytest.raises(TargetError, match=rf'left of the target "{name}".*whole path \(bert'):
            paths(family, target_modules=["query", name], **settings)


def modules(model: PreTrainedModel) -> list[str]:
    return [path for path, _ in model.named_modules() if path]


def test_modules_to_save_follow_the_suffix_rule_and_keep_the_outermost() -> None:
    model = tiny.classifier("distilbert")
    assert resolve_modules(model, modules(model), ["classifier"], "modules_to_save") == [
        "pre_classifier",
        "classifier",
    ]
    roberta = tiny.classifier("roberta")
    names = ["classifier", "out_proj"]
    assert resolve_modules(roberta, modules(roberta), names, "modules_to_save") == ["classifier"]
    with pytest.raises(TargetError, match='Did you mean "classifier"'):
        resolve_modules(model, modules(model), ["clasifier"], "modules_to_save")
