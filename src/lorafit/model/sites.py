"""Which layers of a model can be adapted, found by structure.

There is no table of model names. A layer is adaptable when it multiplies by a weight
matrix: `torch.nn.Linear`, transformers' ``Conv1D``, `torch.nn.Embedding`. Where it
stands follows from the module tree: the blocks are the children of the outermost
``ModuleList`` of like modules, attention is what a module whose class says "attention"
contains, and the head is what stands outside the model's ``base_model``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

Kind = Literal["linear", "conv1d", "embedding", "parameter", "tokens"]
Role = Literal["attention", "mlp", "embedding", "head", "other"]


@dataclass(frozen=True)
class Site:
    """One adaptable place in a model.

    Attributes:
        path: Dotted module path, as in ``model.named_modules()``.
        kind: What the layer is. ``parameter`` and ``tokens`` are what a configuration names
            beside layers: modules with weights that are no layers, and rows of an embedding.
        d_in: Input width (vocabulary size for embeddings).
        d_out: Output width.
        role: Where the layer stands.
        block: Index of the transformer block, ``None`` outside the blocks.
    """

    path: str
    kind: Kind
    d_in: int
    d_out: int
    role: Role
    block: int | None

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer, which ``target_modules`` can name."""
        return self.kind not in ("parameter", "tokens")

    @property
    def name(self) -> str:
        """Last part of the path: what ``target_modules`` usually names."""
        return self.path.rpartition(".")[2]


def find_sites(model: nn.Module) -> list[Site]:
    """Lists every adaptable layer of a model without adapters, in module order.

    A layer that stands under several paths (shared modules) is listed once, under its
    first. Layers that torch's fused ``nn.MultiheadAttention`` uses without calling them
    are left out: an adapter around them would never run.
    """
    blocks = dict(find_blocks(model))
    heads = head_paths(model)
    unreachable = {
        f"{path}." if path else ""
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    sites = []
    for path, module in model.named_modules():
        shape = shape_of(module)
        if shape is None or any(path.startswith(prefix) for prefix in unreachable):
            continue
        kind, d_in, d_out = shape
        block_path = next((p for p in blocks if path.startswith(f"{p}.")), None)
        sites.append(
            Site(
                path=path,
                kind=kind,
                d_in=d_in,
                d_out=d_out,
                role=_role(model, path, kind, block_path, heads),
                block=None if block_path is None else blocks[block_path],
            )
        )
    return sites


def loose_weights(model: nn.Module, adapted: Collection[str] = ()) -> dict[str, int]:
    """Weight matrices inside the blocks that are no layer, so that no adapter goes on them.

    In transformers 5 these are the experts of a mixture and what chooses among them.

    Args:
        model: Without adapters.
        adapted: Paths of parameters, or their last parts, that are adapted all the same.

    Returns:
        Numbers in all parameters of one name, by that name (``experts.gate_up_proj``), in
        module order.
    """
    blocks = tuple(f"{path}." for path, _ in find_blocks(model))
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        if not path.startswith(blocks) or shape_of(module) is not None:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{path}.{name}"
            meant = any(whole == one or whole.endswith(f".{one}") for one in adapted)
            if parameter.ndim > 1 and not meant:
                short = f"{path.rpartition('.')[2]}.{name}"
                found[short] = found.get(short, 0) + parameter.numel()
    return found


def shape_of(module: nn.Module) -> tuple[Kind, int, int] | None:
    """Kind, input width and output width of an adaptable layer."""
    if isinstance(module, nn.Linear):
        return "linear", module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return "conv1d", module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, nn.Embedding):
        return "embedding", module.num_embeddings, module.embedding_dim
    return None


def find_blocks(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Paths and indices of the transformer blocks.

    The outermost ``ModuleList`` whose children are of one class and hold weight
    matrices. Lists nested inside a block (experts) are part of the block. T5 has two
    stacks; each counts its own blocks from 0.
    """
    stacks: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        if any(path.startswith(f"{stack}.") for stack in stacks):
            continue
        if len({type(child) for child in module}) > 1 or not any(
            isinstance(layer, nn.Linear | Conv1D) for layer in module[0].modules()
        ):
            continue
        if isinstance(module[0], nn.Linear | Conv1D):
            continue
        stacks.append(path)
        for index in range(len(module)):
            yield f"{path}.{index}", index


def sublayers(model: nn.Module, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites inside the blocks, one group for each attention and each MLP, in module order.

    An attention is the outermost module of a block that says so; what a block has beside
    its attentions is its MLP.
    """
    groups: dict[str, list[Site]] = {}
    for block, _ in find_blocks(model):
        for site in sites:
            if site.path.startswith(f"{block}."):
                root = _attention_root(model, block, site.path)
                groups.setdefault(root or f"{block}:mlp", []).append(site)
    return list(groups.values())


def output_site(group: Sequence[Site]) -> Site | None:
    """The layer that brings an attention or MLP back to the width it reads: the last such."""
    return next((s for s in reversed(group) if s.d_out == group[0].d_in), None)


def _attention_root(model: nn.Module, block: str, path: str) -> str | None:
    parent, root = model.get_submodule(block), block
    for part in path[len(block) + 1 :].split(".")[:-1]:
        parent, root = parent.get_submodule(part), f"{root}.{part}"
        if re.search("atten|attn", type(parent).__name__, re.IGNORECASE):
            return root
    return None


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """The layer that turns hidden states into scores of tokens; ``None``: the model has none."""
    found: nn.Module | None = getattr(model, "get_output_embeddings", lambda: None)()
    return found


def head_paths(model: nn.Module) -> list[str]:
    """Paths of the modules outside the base model, output embeddings included."""
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not isinstance(getattr(model, prefix, None), nn.Module):
        # T5 with a language-model head has no module for the base.
        output = output_embeddings(model)
        return [name for name, module in model.named_children() if module is output]
    return [name for name, _ in model.named_children() if name != prefix]


def head_modules(model: nn.Module) -> list[str]:
    """Paths of the head's modules that have weights of their own.

    Output embeddings tied to the input embeddings are not a head to be trained.
    """
    output = output_embeddings(model)
    return [
        path
        for path in head_paths(model)
        if (module := model.get_submodule(path)) is not output
        and any(True for _ in module.parameters())
    ]


def _role(
    model: nn.Module, path: str, kind: Kind, block_path: str | None, heads: list[str]
) -> Role:
    if kind == "embedding":
        return "embedding"
    if block_path is None:
        return "head" if path.split(".")[0] in heads else "other"
    return "attention" if _attention_root(model, block_path, path) else "mlp"
