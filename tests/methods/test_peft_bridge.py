"""Tuners of peft behind our interface."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from datasets import DatasetDict

import lorafit
from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError
from lorafit.export import peft as peft_format
from lorafit.methods import methods
from tests import tiny, tiny_text

# Tuner and the settings that tiny layers need.
TUNERS: dict[str, dict[str, Any]] = {
    "beft": {},
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 50},
    "frod": {"progressbar": False},
    "hra": {},
    "loha": {},
    "lokr": {},
    "miss": {"r": 8},
    "oft": {},
    "pvera": {},
    "randlora": {},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "supertuning": {},
    "vera": {},
}
FAMILIES = ("bert", "llama")
# beft merges into a bias, which Llama does not have.
PAIRS = [(t, f) for t in TUNERS for f in FAMILIES if (t, f) != ("beft", "llama")]
# Of torch, at frod's sparse matrices.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
HEADS = {"bert": "classifier", "llama": "score"}


def adapted(tuner: str, family: str = "bert", seed: int = 0) -> Adapters:
    adapters = Adapters(tiny.classifier(family))
    torch.manual_seed(seed)
    method = methods[f"peft:{tuner}"]
    config = method.config_class(
        **method.recommended,
        **TUNERS[tuner],
        task_type="SEQ_CLS",
        modules_to_save=[HEADS[family]],
    )
    adapters.add(config)
    return adapters


def perturb(adapters: Adapters) -> None:
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))


@pytest.mark.parametrize(("tuner", "family"), PAIRS)
def test_a_tuner_keeps_the_promises(tuner: str, family: str, tmp_path: Path) -> None:
    adapters = adapted(tuner, family)
    model = adapters.model
    base = tiny.logits(tiny.classifier(family), family)
    trainable = adapters.trainable()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in trainable.values()
    }
    perturb(adapters)
    live = tiny.logits(model, family)
    assert not torch.allclose(live, base, atol=1e-4)
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, family), base)
    weights = {
        s.path: model.get_parameter(f"{s.path}.weight").clone() for s in adapters.sites["default"]
    }
    adapters.merge()
    torch.testing.assert_close(tiny.logits(model, family), live, rtol=1e-4, atol=1e-5)
    adapters.unmerge()
    for path, weight in weights.items():
        assert torch.equal(model.get_parameter(f"{path}.weight"), weight)
    assert torch.equal(tiny.logits(model, family), live)
    peft_format.save(adapters, tmp_path / "adapter")
    fresh = tiny.classifier(family)
    peft_format.load(fresh, tmp_path / "adapter")
    assert torch.equal(tiny.logits(fresh, family), live)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's remarks on settings
        theirs = peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path / "adapter")
    torch.testing.assert_close(tiny.logits(theirs, family), live, rtol=1e-5, atol=1e-6)
    adapters.unload()
    assert list(model.state_dict()) == list(tiny.classifier(family).state_dict())
    assert torch.equal(tiny.logits(model, family), base)
    assert not hasattr(model, "peft_config")


@pytest.mark.parametrize("tuner", ["vera", "pvera", "randlora", "frod", "oft", "loha"])
def test_pefts_own_file_is_loaded(tuner: str, tmp_path: Path) -> None:
    config: Any = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(tuner.upper())]
    theirs = peft.get_peft_model(
        tiny.classifier("bert"),
        config(target_modules=["query", "value"], task_type="SEQ_CLS", **TUNERS[tuner]),
    )
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    theirs.save_pretrained(str(tmp_path))
    model = tiny.classifier("bert")
    peft_format.load(model, tmp_path)
    torch.testing.assert_close(tiny.logits(model, "bert"), tiny.logits(theirs, "bert"))


@pytest.mark.parametrize("tuner", ["vera", "pvera"])
def test_projections_that_layers_share_are_those_of_the_file(tuner: str, tmp_path: Path) -> None:
    """Not those of the seed: another platform may draw other ones."""
    adapters = adapted(tuner)
    perturb(adapters)
    g = torch.Generator().manual_seed(7)
    shared = adapters.shared_state()
    assert set(shared) == {f"{tuner}_A", f"{tuner}_B"}
    for tensor in shared.values():
        tensor.copy_(torch.rand(tensor.shape, generator=g) - 0.5)
    live = tiny.logits(adapters.model, "bert")
    peft_format.save(adapters, tmp_path)
    saved = peft_format.read_tensors(tmp_path)
    assert torch.equal(saved[f"base_model.{tuner}_A"], shared[f"{tuner}_A"])
    model = tiny.classifier("bert")
    peft_format.load(model, tmp_path)
    assert torch.equal(tiny.logits(model, "bert"), live)
    theirs = peft.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path)
    torch.testing.assert_close(tiny.logits(theirs, "bert"), live, rtol=1e-5, atol=1e-6)
    del saved[f"base_model.{tuner}_B"]
    with pytest.raises(AdapterError, match=rf"base_model\.{tuner}_B is missing"):
        peft_format.update(adapters, saved)
    assert torch.equal(tiny.logits(adapters.model, "bert"), live)


def test_projections_may_be_left_to_the_seed(tmp_path: Path) -> None:
    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(methods["peft:vera"].config_class(save_projection=False))
    perturb(adapters)
    peft_format.save(adapters, tmp_path)
    assert not any("vera_A" in key for key in peft_format.read_tensors(tmp_path))
    model = tiny.classifier("bert")
    peft_format.load(model, tmp_path)
    assert torch.equal(tiny.logits(model, "bert"), tiny.logits(adapters.model, "bert"))


def test_the_same_seed_gives_the_same_adapter() -> None:
    for tuner in ("vera", "loha"):
        first, again = adapted(tuner).state_dict(), adapted(tuner).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_several_named_tuners_take_turns_but_do_not_add_up() -> None:
    adapters = adapted("oft")
    perturb(adapters)
    first = tiny.logits(adapters.model, "bert")
    adapters.add(copy.deepcopy(adapters.configs["default"]), "other")
    adapters.set("other")
    assert not torch.equal(tiny.logits(adapters.model, "bert"), first)
    adapters.set(["default"])
    assert torch.equal(tiny.logits(adapters.model, "bert"), first)
    adapters.delete("other")
    assert torch.equal(tiny.logits(adapters.model, "bert"), first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("peft:verra", 'peft has no tuner "verra".*Did you mean "vera'),
        ("peft:lora", "itself: --method lora"),
        ("peft:ln_tuning", "itself: --method layernorm"),
        ("peft:adalora", "called after each step"),
        ("peft:p_tuning", "adapts no layers"),
        ("peft:adaption_prompt", "adapts whole attention blocks"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        methods[name]


def test_a_tuner_has_the_family_of_what_it_trains() -> None:
    assert methods["peft:shira"].family == methods["peft:beft"].family == "selective"
    assert methods["peft:vera"].family == methods["peft:oft"].family == "reparametrization"


def test_settings_that_do_not_fit_are_refused_and_change_nothing() -> None:
    model = tiny.classifier("bert")
    for tuner, settings, said in (
        ("c3a", {"block_size": 7}, "peft:c3a does not fit BertForSequenceClassification"),
        ("vblora", {"vector_length": 8}, "share trained parameters"),
        ("vera", {"target_modules": ["nothing"]}, "no layer of"),
    ):
        with pytest.raises(ConfigError, match=said):
            Adapters(model).add(methods[f"peft:{tuner}"].config_class(**settings))
        assert list(model.state_dict()) == list(tiny.classifier("bert").state_dict())
        assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="not_a_setting"):
        methods["peft:vera"].config_class(not_a_setting=1)


def test_without_peft_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from lorafit.methods import method_of, methods\n"
        "assert method_of('VERA') is None\n"
        "methods['peft:vera']\n"
    )
    source = str(Path(lorafit.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source}
    )
    assert "peft:vera needs the package peft: pip install peft." in found.stderr


@pytest.mark.parametrize("tuner", ["vera", "oft"])
def test_a_tuner_goes_through_the_whole_pipeline(tuner: str, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "bert")
    data: DatasetDict = tiny_text.splits(24)
    place: dict[str, Any] = {"run.dir": str(tmp_path / "runs")}
    run = lorafit.train(
        base,
        data,
        method=f"peft:{tuner}",
        num_train_epochs=1,
        batch_size=4,
        bf16=False,
        progress=False,
        **place,
    )
    assert run.eval["handoff"]["reloaded_max_abs_diff"] == 0.0
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-5
    assert run.config.adapter.method == f"peft:{tuner}"
    lorafit.merge(run, tmp_path / "plain")
    assert len(lorafit.predict(run, ["a good film"])) == 1
