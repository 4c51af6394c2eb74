from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lorafit.config import Config, DataConfig, ModelConfig, TrainConfig
from lorafit.errors import ConfigError
from lorafit.methods.lora import LoraConfig
from lorafit.settings import (
    Settings,
    from_call,
    from_config,
    from_file,
    from_flags,
    from_keywords,
    from_sets,
    resolve,
)
from lorafit.settings.keys import fields, sections, top_level
from lorafit.settings.sources import LISTS
from lorafit.settings.synonyms import ALIASES, INSTEAD, MEANT, normal

NEEDED = from_flags({"model.name_or_path": ("MODEL", "m"), "data.path": ("DATA", "d")})


def with_sets(*texts: str) -> Settings:
    return resolve(NEEDED, from_sets(texts))


def with_file(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return resolve(NEEDED, from_file(path))


def refused(*texts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        with_sets(*texts)
    return str(caught.value)


def test_defaults_come_from_the_stages_and_the_method() -> None:
    settings = resolve(NEEDED)
    assert settings.config.train == TrainConfig()
    assert settings.config.seed == 0
    assert settings.config.adapter.settings["lora_alpha"] == 16
    assert settings.config.adapter.settings["bias"] == "none"


def test_the_adapter_settings_make_the_methods_config() -> None:
    settings = with_sets("adapter.r=4", "adapter.target_modules=q_lin,v_lin")
    config = LoraConfig(**settings.config.adapter.settings)
    assert config.r == 4
    assert config.target_modules == {"q_lin", "v_lin"}


def test_every_value_has_an_origin() -> None:
    settings = resolve(NEEDED)
    keys = {*top_level(), *(f"{s}.{name}" for s in sections() for name in fields(s, "lora"))}
    assert set(settings.origins) == keys


def test_later_sources_win_and_leave_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\ntrain:\n  learning_rate: 1e-3\n  max_steps: 10\nadapter:\n  r: 2\n")
    settings = resolve(
        NEEDED,
        from_file(path),
        from_sets(["train.learning_rate=2e-3", "adapter.r=4"]),
        from_flags({"adapter.r": ("--r", 8)}),
    )
    config, origins = settings.config, settings.origins
    assert (config.seed, config.train.max_steps) == (1, 10)
    assert config.train.learning_rate == 2e-3
    assert config.adapter.settings["r"] == 8
    assert origins["train.max_steps"] == f"file {path} line 4"
    assert origins["train.learning_rate"] == "flag --set"
    assert origins["adapter.r"] == "flag --r"
    assert origins["train.weight_decay"] == "default"


def test_a_written_configuration_reads_back_the_same(tmp_path: Path) -> None:
    import json

    first = with_sets("adapter.target_modules=v_lin,q_lin", "train.max_steps=7", "data.text=a,b")
    again = with_file(tmp_path, json.dumps(first.config.model_dump(mode="json")))
    assert again.config == first.config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("q_lin", ["q_lin"]),
        ("q_lin,v_lin", ["q_lin", "v_lin"]),
        ("attention.q_lin, v_lin", ["attention.q_lin", "v_lin"]),
        ("[q_lin, v_lin]", ["q_lin", "v_lin"]),
        ("all-linear", "all-linear"),
        (r".*\.(q|v)_lin", r".*\.(q|v)_lin"),
        (r".*layer\.[0-3]\..*,", r".*layer\.[0-3]\..*,"),
        ("*_lin", "*_lin"),
    ],
)
def test_target_modules_on_the_command_line_are_names_or_an_expression(
    text: str, value: list[str] | str
) -> None:
    settings = with_sets(f"adapter.target_modules={text}")
    assert settings.config.adapter.settings["target_modules"] == value
    flagged = resolve(NEEDED, from_flags({"adapter.target_modules": ("--target-modules", text)}))
    if not text.startswith("["):
        assert flagged.config.adapter.settings["target_modules"] == value


def test_a_pattern_in_a_file_stays_an_expression_as_in_peft(tmp_path: Path) -> None:
    settings = with_file(tmp_path, "adapter:\n  target_modules: q_lin\n")
    assert settings.config.adapter.settings["target_modules"] == "q_lin"


def test_one_name_is_enough_where_a_list_of_names_is_wanted(tmp_path: Path) -> None:
    config = with_file(tmp_path, "data:\n  text: review\ntrain:\n  report_to: tensorboard\n").config
    assert config.data.text == ["review"]
    assert config.train.report_to == ["tensorboard"]


def test_the_keys_read_as_lists_are_settings() -> None:
    known = {f"{s}.{name}" for s in sections() for name in fields(s, "lora")}
    assert known >= LISTS


def test_a_set_value_is_typed_as_yaml() -> None:
    config = with_sets(
        "train.max_steps=null", "train.bf16=true", "train.learning_rate=1e-3", "seed=7"
    ).config
    assert (config.train.max_steps, config.train.bf16, config.seed) == (None, True, 7)
    assert config.train.learning_rate == 1e-3


@pytest.mark.parametrize("text", ["7", "2024-01-01", "true", "1e3", "a: b", "@home", "null "])
def test_what_is_typed_is_text_where_text_is_wanted(text: str) -> None:
    if text == "null ":
        assert with_sets("run.name=null").config.run.name is None
    else:
        assert with_sets(f"run.name={text}").config.run.name == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter.r=0", "adapter.r is 0 (flag --set), but it should be greater than 0."),
        ("adapter.r=true", "adapter.r is true (flag --set), but it should be a whole number."),
        ("adapter.r='8'", 'adapter.r is "8" (flag --set), but it should be a whole number.'),
        ("adapter.r=1.5", "adapter.r is 1.5 (flag --set), but it should be a whole number."),
        ("seed=-1", "seed is -1 (flag --set), but it should be greater than or equal to 0."),
        (
            "train.learning_rate=fast",
            'train.learning_rate is "fast" (flag --set), but it should be a number.',
        ),
        (
            "train.num_train_epochs=.nan",
            "train.num_train_epochs is nan (flag --set), but it should be a finite number.",
        ),
        (
            "adapter.target_modules=5",
            "adapter.target_modules is 5 (flag --set), but it should be a list or a text.",
        ),
        ("data.where=[a]", "data.where is ['a'] (flag --set), but it should be a text."),
    ],
)
def test_a_wrong_value_is_one_line(text: str, message: str) -> None:
    assert refused(text) == message


def test_each_wrong_value_has_its_line() -> None:
    assert len(refused("seed=-1", "train.max_steps=0", "run.confidence=2").splitlines()) == 3


def test_a_choice_lists_what_there_is() -> None:
    message = refused("adapter.bias=some")
    assert message.startswith('adapter.bias is "some" (flag --set), but it should be ')
    assert "lora_only" in message


def test_the_methods_own_checks_are_told_in_its_words() -> None:
    assert "orthogonal initialisation takes an even r" in refused(
        "adapter.init_lora_weights=orthogonal", "adapter.r=3"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("train.lerning_rate=1", '"learning_rate"'),
        ("trian.learning_rate=1", '"train"'),
        ("r=8", "adapter.r"),
        ("learning_rate=1", "train.learning_rate"),
        ("adapter.learning_rate=1", "train.learning_rate"),
        ("sed=1", '"seed"'),
        ("adapter.rank=1", "adapter.r?"),
        ("lora_rank=1", "adapter.r?"),
        ("train.lr=1", "train.learning_rate?"),
        ("train.max_seq_length=1", "data.max_length?"),
    ],
)
def test_an_unknown_key_says_what_was_meant(text: str, hint: str) -> None:
    message = refused(text)
    assert "there is no" in message
    assert "Did you mean" in message
    assert hint in message


def test_an_unknown_key_lists_the_keys_of_its_group() -> None:
    message = refused("run.folder=x")
    assert "run has dir, name, confidence" in message


def test_an_overridden_value_has_to_be_a_setting_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  lr: 1\n")
    with pytest.raises(ConfigError, match=r'no setting "train.lr" \(file .*run.yaml line 2\)'):
        resolve(NEEDED, from_file(path), from_sets(["train.learning_rate=1e-3"]))


def test_a_group_is_no_value() -> None:
    assert '"run" is a group of settings' in refused("run=distilbert")


def test_an_unknown_method_lists_the_methods() -> None:
    assert 'there is no method "lorra"; there is' in refused("adapter.method=lorra")
    assert "not a name" in refused("adapter.method=[lora]")


@pytest.mark.parametrize("text", ["adapter.r", "=3", "adapter.r 8"])
def test_set_wants_key_and_value(text: str) -> None:
    assert refused(text).startswith("--set wants KEY=VALUE")


def test_an_unfinished_list_is_refused() -> None:
    assert "a list is written" in refused("adapter.target_modules=[q_lin")


def test_the_model_and_the_data_have_to_be_named() -> None:
    with pytest.raises(ConfigError, match="which model"):
        resolve()
    with pytest.raises(ConfigError, match="which data"):
        resolve(from_sets(["model.name_or_path=m"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  max_steps: 1\n  max_steps: 2\n", 'line 3: the key "max_steps" is there twice'),
        ("train: {max_steps: 1", "line 1: not valid YAML"),
        ("train:\n\tmax_steps: 1\n", "line 2: not valid YAML"),
        ("- a\n- b\n", "holds a list, not settings"),
        ("just text\n", "holds a text, not settings"),
        ("3: x\n", "the key 3 is a number, not a name"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
        ("run: !!python/name:os.system\n", "line 1: not valid YAML"),
        ("train: fast\n", '"train" is a group of settings'),
        ("train:\n  max_steps: [1]\n", "line 2), but it should be a whole number"),
        ("adapter:\n  rank_pattern: &a {x: *a}\n", "not made of plain values"),
        ("trian:\n  max_steps: 1\n", 'Did you mean "train"'),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_file(tmp_path, text)
    assert message in str(caught.value)


def test_an_alias_is_the_value_it_stands_for(tmp_path: Path) -> None:
    config = with_file(
        tmp_path,
        "data:\n  validation_fraction: &share 0.2\n  test_fraction: *share\n",
    ).config
    assert config.data.test_fraction == 0.2


@pytest.mark.parametrize("text", ["", "# nothing\n", "train:\n", "train:\n  # max_steps: 1\n"])
def test_an_empty_file_or_group_sets_nothing(tmp_path: Path, text: str) -> None:
    assert with_file(tmp_path, text).config == resolve(NEEDED).config


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        from_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        from_file(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("run:\n  name: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        from_file(latin)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert resolve(NEEDED, from_file(path)).config.seed == 3


def test_keywords_are_placed_by_their_name() -> None:
    settings = resolve(
        from_keywords(
            {
                "model": "m",
                "data": Path("folder") / "d.csv",
                "r": 4,
                "learning_rate": 1e-3,
                "batch_size": np.int64(16),
                "target_modules": ("q_lin", "v_lin"),
                "text": "review",
                "runs_dir": "out",
                "name": "first",
                "seed": 3,
                "data.revision": "main",
            }
        )
    )
    config = settings.config
    assert config.data.path == str(Path("folder") / "d.csv")
    assert config.adapter.settings["r"] == 4
    assert config.adapter.settings["target_modules"] == ["q_lin", "v_lin"]
    assert config.train.per_device_train_batch_size == 16
    assert (config.run.dir, config.run.name, config.seed) == ("out", "first", 3)
    assert config.data.revision == "main"
    assert settings.origins["adapter.r"] == "keyword r"


def test_a_set_of_modules_is_a_list_in_order() -> None:
    layer = from_keywords({"target_modules": {"v_lin", "q_lin"}})
    assert resolve(NEEDED, layer).config.adapter.settings["target_modules"] == ["q_lin", "v_lin"]


def test_a_keyword_that_fits_nowhere_or_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'no setting "lerning_rate"\. Did you mean "learning'):
        from_keywords({"lerning_rate": 1})
    with pytest.raises(ConfigError, match=r"could be model\.revision or data\.revision"):
        from_keywords({"revision": "main"})
    with pytest.raises(ConfigError, match="given twice"):
        from_keywords({"batch_size": 1, "per_device_train_batch_size": 2})
    with pytest.raises(ConfigError, match="not made of plain values"):
        resolve(NEEDED, from_keywords({"label": object()}))


def test_the_short_names_are_keywords_too() -> None:
    given = {"lr": 1e-3, "epochs": 2, "rank": 4, "alpha": 8, "dropout": 0.1}
    settings = resolve(NEEDED, from_keywords(given))
    assert settings.config.train.learning_rate == 1e-3
    assert settings.config.train.num_train_epochs == 2
    adapter = settings.config.adapter.settings
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 8, 0.1)
    assert settings.origins["adapter.r"] == "keyword rank"
    with pytest.raises(ConfigError, match="given twice"):
        from_keywords({"lr": 1e-3, "learning_rate": 2e-3})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bs", 'Did you mean "batch_size"?'),
        ("lora_rank", 'Did you mean "r"?'),
        ("dataset", 'Did you mean "data"?'),
        ("base_model", 'Did you mean "model"?'),
        ("max_seq_length", 'Did you mean "max_length"?'),
        ("save_dir", "run.dir"),
    ],
)
def test_a_keyword_of_another_tool_is_answered_by_its_meaning(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_keywords({name: 1})
    assert f'there is no setting "{name}". ' in str(caught.value)
    assert hint in str(caught.value)


def test_short_names_of_model_data_and_output_are_taken_everywhere(tmp_path: Path) -> None:
    named = {"model": "m", "data": "d.csv", "output": "out/first"}
    (tmp_path / "a.yaml").write_text("model: m\ndata: d.csv\nrun:\n  dir: out\n  name: first\n")
    layers = [
        from_keywords(named),
        from_keywords({"model": "m", "data": "d.csv", "output_dir": "out/first"}),
        from_sets([f"{name}={value}" for name, value in named.items()]),
        from_file(tmp_path / "a.yaml"),
    ]
    for layer in layers:
        config = resolve(layer).config
        assert (config.model.name_or_path, config.data.path) == ("m", "d.csv")
        assert (config.run.dir, config.run.name) == ("out", "first")
    for twice in ({"output": "a/b", "name": "c"}, {"output": "a/b", "output_dir": "a/b"}):
        with pytest.raises(ConfigError, match=r"run\.\w+ is given twice"):
            from_keywords(twice)
    with pytest.raises(ConfigError, match=r"run\.name is set twice"):
        from_sets(["output=a/b", "run.name=c"])
    with pytest.raises(ConfigError, match="folder of one run"):
        from_keywords({"output": "."})


def test_each_synonym_means_a_setting_and_is_none_itself() -> None:
    keys = {*top_level(), *(f"{s}.{name}" for s in sections() for name in fields(s, "lora"))}
    names = {key.rpartition(".")[2] for key in keys} - {"name", "path", "dir"}
    assert {*ALIASES.values(), *MEANT.values()} <= keys
    assert not {*ALIASES, *MEANT, *INSTEAD} & names
    assert not {*ALIASES} & {*MEANT, *INSTEAD}
    assert not {*MEANT} & {*INSTEAD}
    assert all(name == normal(name) for name in (*ALIASES, *MEANT, *INSTEAD))


def test_keywords_with_model_and_data_swapped_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "d.csv").write_text("text,label\n")
    model, data = tmp_path / "model", tmp_path / "d.csv"
    for swapped in (model, str(model), "owner/model"):
        with pytest.raises(ConfigError, match="the model comes first"):
            from_call(data, swapped, None, None, {})
    assert from_call(model, data, None, None, {}).config.data.path == str(data)
    assert from_call("owner/model", data, None, None, {}).config.data.path == str(data)
    assert from_call(data, data, None, None, {}).config.data.path == str(data)  # refused later


def test_a_config_object_keeps_its_defaults_as_defaults() -> None:
    config = Config(
        model=ModelConfig(name_or_path="m"),
        data=DataConfig(path="d"),
        train=TrainConfig(max_steps=3),
    )
    settings = resolve(from_config(config))
    assert settings.config.train.max_steps == 3
    assert settings.origins["train.max_steps"] == "config"
    assert settings.origins["train.learning_rate"] == "default"


def test_settings_that_are_resolved_are_taken_as_they_are() -> None:
    settings = with_sets("adapter.r=4")
    assert from_call(None, None, settings, None, {}) is settings


def test_keywords_on_top_of_settings_leave_the_other_origins() -> None:
    settings = with_sets("adapter.r=4", "train.max_steps=3")
    found = from_call("other", None, settings, None, {"r": 5})
    assert found.config.model.name_or_path == "other"
    assert found.config.adapter.settings["r"] == 5
    assert found.origin("adapter.r") == "keyword r"
    assert found.origin("train.max_steps") == "flag --set"
    assert found.origin("data.path") == "flag DATA"
    assert not found.is_set("train.weight_decay")


def test_origins_of_a_plain_configuration_are_kept() -> None:
    config = with_sets("adapter.r=4").config
    found = from_call(None, None, config, {"adapter.r": "a file of mine"}, {})
    assert found.origin("adapter.r") == "a file of mine"
    assert found.config == config


def test_what_is_left_to_measure_stays_open_in_a_call() -> None:
    found = from_call("m", "d", None, None, {"learning_rate": "auto", "r": 3})
    assert found.is_open("train.learning_rate")
    assert found.is_open("adapter.lora_alpha")
    assert not found.is_open("adapter.r")


def test_a_configuration_in_the_place_of_the_model_is_refused() -> None:
    config = with_sets().config
    for model, data in ((config, None), ("m", config), (Settings(config, {}), "d")):
        with pytest.raises(ConfigError, match=r"lorafit.plan\(model, data, config=config\)"):
            from_call(model, data, None, None, {})


def test_measured_values_take_the_place_of_their_starting_values() -> None:
    settings = with_sets("train.max_steps=3")
    values = {"train.learning_rate": 3e-4, "adapter.target_modules": {"v", "q"}, "adapter.r": 2}
    found = settings.with_measured(values)
    assert found.config.train.learning_rate == 3e-4
    assert found.config.train.max_steps == 3
    assert found.config.adapter.settings["target_modules"] == ["q", "v"]
    assert found.config.adapter.settings["r"] == 2
    assert {key for key in found.origins if found.origin(key) == "measured"} == set(values)
    assert settings.config.train.learning_rate != 3e-4
