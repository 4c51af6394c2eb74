"""What every method promises, as tests to inherit.

A subclass in a test module names a registered method and says how many parameters it trains;
pytest then runs each test below on small models of several families, with random weights made
in memory.
"""

from __future__ import annotations

import copy
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.export import peft as peft_format
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, MethodConfig
from lorafit.testing import tiny

HEADS = {
    "distilbert": ["pre_classifier", "classifier"],
    "gpt2": ["score"],
    "llama": ["score"],
    "t5": ["classification_head"],
}
"""The head of each family, which every adapter here trains whole."""

# A key's bias shifts all scores of a query alike: softmax does not see it.
_BLIND = re.compile(r"\bk_lin\.(base_layer\.)?bias$")


class MethodChecks(ABC):
    """The promises of one method, each a test.

    Attributes:
        method: The registered name.
        recommended: Test the method with its recommended settings, as the case
            ``recommended``.
        cases: Other settings to test it with, by a name for each.
        families: The models to test it on: ``distilbert`` has ``nn.Linear``, ``gpt2``
            transformers' ``Conv1D``, ``llama`` grouped heads and no biases, ``t5`` two stacks.
        misfits: Families that the method cannot adapt, and what the refusal says (a regular
            expression).
        random: Whether another seed gives another adapter.
        start_tolerance: How far a fresh adapter may be from the base where it is not exact.
        file_tolerance: The same of an adapter that was saved and loaded.
    """

    method: ClassVar[str]
    recommended: ClassVar[bool] = True
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    families: ClassVar[tuple[str, ...]] = ("distilbert", "gpt2", "llama", "t5")
    misfits: ClassVar[Mapping[str, str]] = {}
    random: ClassVar[bool] = True
    start_tolerance: ClassVar[float] = 0.0
    file_tolerance: ClassVar[float] = 0.0

    @abstractmethod
    def parameter_count(
        self, model: Any, base: Mapping[str, nn.Parameter], adapters: Adapters
    ) -> int:
        """The formula: how many parameters the method trains, those of the head left out.

        Args:
            model: A plain model of the family.
            base: Its parameters by name, without those of the head.
            adapters: An adapted model: ``adapters.configs["default"]`` are the settings,
                ``adapters.sites["default"]`` the adapted layers with their ``d_in``, ``d_out``.
        """

    def settings(self) -> dict[str, Mapping[str, Any]]:
        """The settings of each case."""
        usual = {"recommended": methods[self.method].recommended} if self.recommended else {}
        return {**usual, **self.cases}

    def home(self) -> str:
        """A family that the method fits, for promises that hold of any."""
        return next(family for family in self.families if family not in self.misfits)

    def adapted(
        self, case: str, family: str, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Adapters:
        """A fresh adapter on a new model, in evaluation mode."""
        model: nn.Module = tiny.classifier(family)
        model = model.to(dtype)
        torch.manual_seed(seed)
        adapters = Adapters(model)
        adapters.add(self._config(case, family))
        return adapters

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs each test on every case and family it takes."""
        names = metafunc.fixturenames
        fitting = [family for family in self.families if family not in self.misfits]
        if "case" in names:
            metafunc.parametrize("case", list(self.settings()))
        if "family" in names:
            metafunc.parametrize("family", fitting)
        if "any_family" in names:
            metafunc.parametrize("any_family", self.families)
        if "dtype" in names:
            metafunc.parametrize("dtype", [torch.bfloat16, torch.float16])

    # 1. At the start the adapted model is the base model -------------------------------

    def test_training_starts_at_the_base_model(self, case: str, family: str) -> None:
        """Bit for bit; a method that cannot says so in ``starts_at_base``."""
        base = tiny.logits(tiny.classifier(family), family)
        start = tiny.logits(self.adapted(case, family).model, family)
        if not methods[self.method].starts_at_base:
            assert torch.isfinite(start).all()
            assert not torch.equal(start, base)
            return
        tolerance = self.start_tolerance
        torch.testing.assert_close(start, base, rtol=tolerance, atol=tolerance)

    def test_disabled_adapters_compute_what_the_base_computes(self, case: str, family: str) -> None:
        """Bit for bit, merged or not."""
        adapters = self.adapted(case, family)
        base = tiny.logits(tiny.classifier(family), family)
        _train(adapters)
        live = tiny.logits(adapters.model, family)
        with adapters.disabled():
            assert torch.equal(tiny.logits(adapters.model, family), base)
        assert torch.equal(tiny.logits(adapters.model, family), live)
        if adapters.unmergeable():
            return
        adapters.merge()
        with adapters.disabled():
            assert torch.equal(tiny.logits(adapters.model, family), base)
        _assert_near(tiny.logits(adapters.model, family), live)

    # 2. Merged computes what adapted computes ------------------------------------------

    def test_merged_model_computes_the_same_and_unmerging_restores_the_base_bit_for_bit(
        self, case: str, family: str
    ) -> None:
        """Or merging is refused with the reason, and changes nothing."""
        adapters = self.adapted(case, family)
        weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(adapters)}
        _train(adapters)
        live = tiny.logits(adapters.model, family)
        if adapters.unmergeable():
            with pytest.raises(AdapterError, match="cannot be merged: "):
                adapters.merge()
            assert not adapters.merged
            assert torch.equal(tiny.logits(adapters.model, family), live)
            return
        adapters.merge(safe_merge=True)
        _assert_near(tiny.logits(adapters.model, family), live)
        adapters.unmerge()
        for path, layer in _layers(adapters):
            assert torch.equal(layer.base_layer.weight, weights[path])
        assert torch.equal(tiny.logits(adapters.model, family), live)

    def test_unmerging_restores_the_base_bit_for_bit_in_bfloat16(self, case: str) -> None:
        """And what is added to the model is float32."""
        adapters = self.adapted(case, self.home(), dtype=torch.bfloat16)
        weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(adapters)}
        _train(adapters)
        # Copies of base parameters have the base's format; everything else is float32.
        copies = {id(p) for p in adapters.model.parameters() if p.dtype == torch.bfloat16}
        added = {p.dtype for p in adapters.trainable().values() if id(p) not in copies}
        assert added == {torch.float32}
        if not adapters.unmergeable():
            adapters.merge()
            adapters.unmerge()
        for path, layer in _layers(adapters):
            assert torch.equal(layer.base_layer.weight, weights[path])

    def test_a_half_precision_base_runs_with_its_float32_adapter(
        self, case: str, dtype: torch.dtype
    ) -> None:
        """Live and merged."""
        adapters = self.adapted(case, self.home(), dtype=dtype)
        _train(adapters)
        live = tiny.logits(adapters.model, self.home())
        assert live.dtype == dtype
        if adapters.unmergeable():
            return
        adapters.merge()
        scale = live.float().abs().max().item()
        merged = tiny.logits(adapters.model, self.home())
        torch.testing.assert_close(merged.float(), live.float(), rtol=5e-2, atol=5e-2 * scale)

    def test_unloading_gives_the_model_back_as_it_came(self, case: str, family: str) -> None:
        """Bit for bit, and trainable."""
        adapters = self.adapted(case, family)
        plain = tiny.classifier(family)
        _train(adapters)
        model = adapters.unload()
        ours, theirs = model.state_dict(), plain.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(p.requires_grad for p in model.parameters())

    def test_unloading_merged_leaves_a_plain_model_that_computes_the_same(
        self, case: str, family: str
    ) -> None:
        """Or it is refused with the reason, and changes nothing."""
        adapters = self.adapted(case, family)
        _train(adapters)
        live = tiny.logits(adapters.model, family)
        if adapters.unmergeable():
            with pytest.raises(AdapterError, match="cannot be merged: "):
                adapters.unload(merge=True)
            assert torch.equal(tiny.logits(adapters.model, family), live)
            return
        merged = adapters.unload(merge=True)
        assert list(merged.state_dict()) == list(tiny.classifier(family).state_dict())
        _assert_near(tiny.logits(merged, family), live)

    # 3. Only the adapter and declared heads train --------------------------------------

    def test_only_the_adapter_and_the_head_train_and_all_of_it_gets_a_gradient(
        self, case: str, family: str
    ) -> None:
        """In two steps: where ``B = 0``, ``A`` gets its first gradient in the second."""
        adapters = self.adapted(case, family)
        model, trainable = adapters.model, adapters.trainable()
        training = {id(p) for p in model.parameters() if p.requires_grad}
        assert training == {id(p) for p in trainable.values()}
        optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
        seen: set[str] = set()
        model.train()
        for _ in range(2):
            optimizer.zero_grad()
            logits = model(**tiny.inputs(family)).logits
            loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3)
            torch.autograd.backward(loss)
            seen |= {n for n, p in trainable.items() if p.grad is not None and p.grad.any()}
            optimizer.step()
        assert seen >= {name for name in trainable if not _BLIND.search(name)}

    # 4. Saved, loaded by us, loaded by PEFT and live: the same logits ------------------

    def test_saved_tensors_loaded_into_a_fresh_model_compute_the_same(
        self, case: str, family: str
    ) -> None:
        """Bit for bit, whatever the fresh adapter started from."""
        adapters = self.adapted(case, family)
        base = tiny.logits(adapters.model, family)
        _train(adapters)
        live = tiny.logits(adapters.model, family)
        assert not torch.allclose(live, base, atol=1e-4), "the change has to be visible"
        tensors = {name: t.clone() for name, t in adapters.state_dict().items()}
        others = self.adapted(case, family, seed=1)
        others.load_state_dict("default", tensors)
        assert torch.equal(tiny.logits(others.model, family), live)

    def test_written_and_read_back_it_computes_the_same(
        self, case: str, family: str, tmp_path: Path
    ) -> None:
        """As a folder on disk, which says which method it is of."""
        adapters = self.adapted(case, family)
        _train(adapters)
        live = tiny.logits(adapters.model, family)
        peft_format.save(adapters, tmp_path / "adapter")
        fresh = tiny.classifier(family)
        loaded = peft_format.load(fresh, tmp_path / "adapter")
        tolerance = self.file_tolerance
        torch.testing.assert_close(tiny.logits(fresh, family), live, rtol=tolerance, atol=tolerance)
        assert not loaded.trainable()
        loaded.unload()
        assert torch.equal(tiny.logits(fresh, family), tiny.logits(tiny.classifier(family), family))

    def test_peft_computes_the_same_or_refuses_the_file(self, case: str, tmp_path: Path) -> None:
        """A ``peft_type`` that is not PEFT's begins with ``LORAFIT_``, so PEFT refuses it."""
        import peft

        family = self.home()
        adapters = self.adapted(case, family)
        _train(adapters)
        peft_format.save(adapters, tmp_path)
        kind = adapters.configs["default"].peft_type
        if kind.startswith("LORAFIT_"):
            with pytest.raises((KeyError, ValueError), match=kind):
                peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has doubts about layers that are not linear
            theirs = peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path)
        _assert_near(tiny.logits(theirs, family), tiny.logits(adapters.model, family))

    # 5. The same seed gives the same adapter -------------------------------------------

    def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(self, case: str) -> None:
        """Another one only where there is something random in it."""
        first = self.adapted(case, self.home(), seed=0).state_dict()
        again = self.adapted(case, self.home(), seed=0).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        other = self.adapted(case, self.home(), seed=1).state_dict()
        changed = [name for name in first if not torch.equal(first[name], other[name])]
        assert bool(changed) == self.random

    # 6. Parameter counts equal the formula ---------------------------------------------

    def test_trainable_parameter_count_equals_the_formula(self, case: str, family: str) -> None:
        """`parameter_count`, and the head."""
        adapters = self.adapted(case, family)
        plain = tiny.classifier(family)
        heads = tuple(f"{path}." for path in adapters.whole["default"])
        names = dict(plain.named_parameters())
        base = {name: p for name, p in names.items() if not name.startswith(heads)}
        head = sum(p.numel() for name, p in names.items() if name.startswith(heads))
        found = sum(p.numel() for p in adapters.trainable().values())
        assert found == self.parameter_count(plain, base, adapters) + head

    # A method does not stand alone -----------------------------------------------------

    def test_it_fits_the_families_it_says_and_is_refused_elsewhere_with_the_reason(
        self, case: str, any_family: str
    ) -> None:
        """A refusal leaves the model as it was."""
        model = tiny.classifier(any_family)
        before = tiny.logits(model, any_family)
        adapters = Adapters(model)
        if any_family not in self.misfits:
            adapters.add(self._config(case, any_family))
            assert adapters.trainable()
            return
        with pytest.raises((ConfigError, TargetError), match=self.misfits[any_family]):
            adapters.add(self._config(case, any_family))
        assert list(model.state_dict()) == list(tiny.classifier(any_family).state_dict())
        assert all(p.requires_grad for p in model.parameters())
        assert torch.equal(tiny.logits(model, any_family), before)

    def test_it_goes_beside_lora_and_leaves_again(self, case: str) -> None:
        """Or, where both want one layer, LoRA is refused."""
        family = self.home()
        adapters = self.adapted(case, family)
        _train(adapters)
        own = tiny.logits(adapters.model, family)
        targets = {"q_lin", "lin1"} if family == "distilbert" else {"c_attn", "q_proj", "q"}
        lora = methods["lora"].config_class(target_modules=targets & _names(adapters), r=2)
        taken = targets & {site.name for site in adapters.sites["default"]}
        if taken and adapters.configs["default"].peft_type != lora.peft_type:
            with pytest.raises(AdapterError, match="cannot share a layer"):
                adapters.add(lora, "lora")
            return
        adapters.add(lora, "lora")
        adapters.set(["default", "lora"])
        _train(adapters)
        assert not torch.allclose(tiny.logits(adapters.model, family), own, atol=1e-4)
        adapters.set(["lora"])
        adapters.delete("default")
        adapters.delete("lora")
        model, base = adapters.unload(), tiny.classifier(family)
        assert list(model.state_dict()) == list(base.state_dict())
        assert torch.equal(tiny.logits(model, family), tiny.logits(base, family))

    def test_a_copied_adapted_model_is_independent(self, case: str) -> None:
        """``copy.deepcopy`` copies the adapters."""
        adapters = self.adapted(case, self.home())
        twin = copy.deepcopy(adapters)
        before = tiny.logits(adapters.model, self.home())
        _train(twin)
        assert torch.equal(tiny.logits(adapters.model, self.home()), before)
        assert not torch.allclose(tiny.logits(twin.model, self.home()), before, atol=1e-4)

    def _config(self, case: str, family: str) -> MethodConfig:
        config: MethodConfig = methods[self.method].config_class(
            **{"modules_to_save": HEADS[family], "task_type": "SEQ_CLS", **self.settings()[case]}
        )
        return config


def _train(adapters: Adapters, seed: int = 3) -> None:
    """Stands in for training: every trainable parameter moves."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))


def _layers(adapters: Adapters) -> Iterator[tuple[str, Any]]:
    return ((path, m) for path, m in adapters.model.named_modules() if isinstance(m, AdapterLayer))


def _names(adapters: Adapters) -> set[str]:
    """The last parts of the model's module paths."""
    return {path.rpartition(".")[2] for path, _ in adapters.model.named_modules()}


def _assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    atol = 1e-5 * wanted.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=atol)
