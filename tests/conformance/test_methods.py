"""The promises of every registered method and of its variants, by `lorafit.testing`.

Variants of LoRA are settings and not methods, so they are listed.
"""

from __future__ import annotations

import re
from typing import Any

from lorafit.methods import methods
from lorafit.testing import MethodChecks

ALL = {"target_modules": "all-linear"}


class TestFull(MethodChecks):
    method = "full"
    random = False

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        return sum(p.numel() for p in base.values())


class TestHead(MethodChecks):
    method = "head"
    random = False

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        return 0


class TestBitfit(MethodChecks):
    method = "bitfit"
    random = False
    misfits = {"llama": "has none", "t5": "has none"}

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        return biases(base)


class TestLayernorm(MethodChecks):
    """Vectors that are not biases of matrices: what normalisations have."""

    method = "layernorm"
    random = False

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        own = re.compile(r"(norm|ln_\w+)\.(weight|bias)$")
        return sum(p.numel() for name, p in base.items() if own.search(name.lower()))


class TestLastLayers(MethodChecks):
    method = "last_layers"
    random = False
    top = {
        "distilbert": ("distilbert.transformer.layer", []),
        "gpt2": ("transformer.h", ["transformer.ln_f"]),
        "llama": ("model.layers", ["model.norm"]),
        "t5": ("transformer.decoder.block", ["transformer.decoder.final_layer_norm"]),
    }

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        stack, above = self.top[model.config.model_type]
        blocks = list(model.get_submodule(stack))[-adapters.configs["default"].k :]
        modules = [*blocks, *map(model.get_submodule, above)]
        return sum(p.numel() for module in modules for p in module.parameters())


class TestSparse(MethodChecks):
    method = "sparse"
    cases = {"dense": {"density": 0.3}}

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        density = adapters.configs["default"].density
        sites = adapters.sites["default"]
        return sum(max(1, round(density * s.d_in * s.d_out)) for s in sites)


class TestIA3(MethodChecks):
    method = "ia3"
    cases = {"all-linear": ALL}
    random = False

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        inputs = adapters.configs["default"].feedforward_modules
        sites = adapters.sites["default"]
        return sum(s.d_in if s.path in inputs else s.d_out for s in sites)


class TestBottleneck(MethodChecks):
    method = "bottleneck"
    cases = {"pfeiffer": {"placement": "pfeiffer", "reduction_factor": 4}}

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        count = 0
        for site in adapters.sites["default"]:
            m = adapters.configs["default"].width(site)
            count += 2 * m * site.d_out + m + site.d_out
        return count


class TestPrompt(MethodChecks):
    method = "prompt"
    cases = {"random": {"num_virtual_tokens": 3}}
    misfits = {"t5": "two inputs"}

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        [site] = adapters.sites["default"]
        return int(adapters.configs["default"].num_virtual_tokens * site.d_out)


class TestPrefix(MethodChecks):
    """Keys and values of every layer, or the MLP that makes them."""

    method = "prefix"
    cases = {
        "random": {"num_virtual_tokens": 3},
        "projected": {"num_virtual_tokens": 3, "prefix_projection": True},
    }
    misfits = {"distilbert": "takes no past keys and values"}

    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        settings, config = model.config, adapters.configs["default"]
        grouped = getattr(settings, "num_key_value_heads", settings.num_attention_heads)
        d = settings.hidden_size * grouped // settings.num_attention_heads
        width, n = 2 * settings.num_hidden_layers * d, config.num_virtual_tokens
        projection: bool = config.prefix_projection
        return int(n * d + d * d + d + d * width + width if projection else n * width)


class LoraChecks(MethodChecks):
    def parameter_count(self, model: Any, base: Any, adapters: Any) -> int:
        config = adapters.configs["default"]
        ranks = {site: config.rank(site.path) for site in adapters.sites["default"]}
        count = sum(r * (site.d_in + site.d_out) for site, r in ranks.items())
        if config.use_dora:
            count += sum(site.d_out for site in ranks)
        if config.bias == "all":
            count += biases(base)
        if config.bias == "lora_only":
            count += sum(base[f"{site.path}.bias"].numel() for site in ranks)
        return int(count)


class TestLora(LoraChecks):
    method = "lora"
    cases = {
        "default": ALL,
        "r1": ALL | {"r": 1},
        "rslora": ALL | {"use_rslora": True, "lora_alpha": 16},
        "dora": ALL | {"use_dora": True},
        "gaussian": ALL | {"init_lora_weights": "gaussian"},
        "dropout": ALL | {"lora_dropout": 0.3},
        "ranks": ALL | {"rank_pattern": {".*1\\..*": 2}, "alpha_pattern": {".*0\\..*": 32}},
    }


class TestRsLora(LoraChecks):
    method = "rslora"


class TestDora(LoraChecks):
    method = "dora"


class TestLoraBiases(LoraChecks):
    method = "lora"
    recommended = False
    cases = {"all": ALL | {"bias": "all"}, "lora-only": ALL | {"bias": "lora_only"}}
    misfits = {"llama": "no such biases", "t5": "no such biases"}


class TestLoraOrthogonal(LoraChecks):
    """``B A`` is zero only up to rounding; every other start is exact."""

    method = "lora"
    recommended = False
    cases = {"orthogonal": ALL | {"init_lora_weights": "orthogonal"}}
    start_tolerance = 1e-6


class StartsFromTheWeight(LoraChecks):
    """PiSSA and OLoRA are written as one LoRA of twice the rank, which is summed differently."""

    recommended = False
    random = False
    file_tolerance = 1e-5


class TestLoraFromTheWeight(StartsFromTheWeight):
    method = "lora"
    cases = {
        "olora": ALL | {"init_lora_weights": "olora"},
        "pissa": ALL | {"init_lora_weights": "pissa"},
        "pissa-dora": ALL | {"init_lora_weights": "pissa", "use_dora": True},
    }


class TestPissa(StartsFromTheWeight):
    method = "pissa"
    recommended = True


class TestPissaFast(StartsFromTheWeight):
    """The randomised decomposition."""

    method = "lora"
    cases = {"fast": ALL | {"init_lora_weights": "pissa_niter_8"}}
    random = True


def biases(base: Any) -> int:
    return sum(p.numel() for name, p in base.items() if name.endswith(".bias"))


def test_every_method_has_its_checks() -> None:
    checked = {
        value.method
        for value in globals().values()
        if isinstance(value, type) and hasattr(value, "method")
    }
    assert checked == set(methods)
