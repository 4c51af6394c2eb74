"""From ``target_modules`` and its relatives to an explicit list of sites.

The rules are PEFT's: a list entry matches a whole path or its last parts, a string is
a regular expression that matches the whole path, ``"all-linear"`` is every weight
matrix but the head's. After this step there are no patterns left. Unlike in PEFT,
whatever matches nothing is an error that names the close matches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, Unpack

from torch import nn

from lorafit.errors import TargetError, did_you_mean
from lorafit.model import expressions
from lorafit.model.expressions import ExpressionError
from lorafit.model.sites import Site

ALL_LINEAR = "all-linear"


def matches(path: str, names: Collection[str] | str) -> bool:
    """Whether a module path is meant by a list of names or by a regular expression."""
    if isinstance(names, str):
        return expressions.fullmatch(names, path)
    return any(path == name or path.endswith(f".{name}") for name in names)


class Patterns(TypedDict):
    """What a configuration says of its targets, in PEFT's words."""

    target_modules: Collection[str] | str
    """Names, a regular expression, or ``"all-linear"``."""
    exclude_modules: NotRequired[Collection[str] | str | None]
    """Names or a regular expression to leave out."""
    layers_to_transform: NotRequired[Collection[int] | int | None]
    """Block indices to keep; blocks are counted per stack."""
    layers_pattern: NotRequired[Collection[str] | str | None]
    """Names of the block lists the indices count in, e.g. ``"h"``."""
    modules_to_save: NotRequired[Collection[str] | None]
    """Names of modules trained whole; nothing inside is a target."""


def select(model: nn.Module, sites: Sequence[Site], **patterns: Unpack[Patterns]) -> list[Site]:
    """Resolves the patterns of a configuration.

    Args:
        model: The model, for its name and module paths in messages.
        sites: All adaptable layers (`find_sites`).
        **patterns: ``target_modules``, and what else of `Patterns` there is.

    Returns:
        The chosen sites, in module order, at least one.

    Raises:
        TargetError: A name, expression or index matches nothing, or everything is excluded.
    """
    chosen = _targets(model, sites, patterns["target_modules"])
    if whole := patterns.get("modules_to_save"):
        chosen = [s for s in chosen if not inside_modules(s.path, whole)]
    if excluded := patterns.get("exclude_modules"):
        _check_names(model, sites, excluded, "exclude_modules")
        chosen = [s for s in chosen if not matches(s.path, excluded)]
    blocks = patterns.get("layers_to_transform")
    if blocks is not None and blocks != []:
        named = patterns["target_modules"]
        chosen = _in_blocks(model, chosen, blocks, patterns.get("layers_pattern"), named)
    if not chosen:
        raise TargetError(
            f"{_name(model)}: nothing is left of target_modules after exclude_modules, "
            "modules_to_save and layers_to_transform."
        )
    return chosen


def _targets(
    model: nn.Module, sites: Sequence[Site], target_modules: Collection[str] | str
) -> list[Site]:
    if isinstance(target_modules, str) and target_modules.lower() == ALL_LINEAR:
        return [s for s in sites if s.kind != "embedding" and s.role != "head"]
    if not target_modules:
        raise TargetError(f"target_modules is empty; {_name(model)} has {summary(sites)}.")
    _check_names(model, sites, target_modules, "target_modules")
    return [s for s in sites if matches(s.path, target_modules)]


def _check_names(
    model: nn.Module, sites: Sequence[Site], names: Collection[str] | str, setting: str
) -> None:
    """Refuses a name or expression that matches no adaptable layer."""
    if isinstance(names, str):
        try:
            found = any(matches(s.path, names) for s in sites)
        except ExpressionError as error:
            raise TargetError(f"{setting}: {error}") from None
        if not found:
            raise TargetError(
                f'{setting}: no layer of {_name(model)} matches the expression "{names}" '
                f"(it has to match the whole path, such as {sites[0].path}).\n"
                f"It has {summary(sites)}.{did_you_mean(names, [s.name for s in sites])}"
            )
        return
    paths = dict(model.named_modules())
    for name in sorted(names):
        if any(matches(s.path, [name]) for s in sites):
            continue
        other = next((module for path, module in paths.items() if matches(path, [name])), None)
        if other is not None:
            raise TargetError(
                f'{setting}: "{name}" of {_name(model)} is a {type(other).__name__}, '
                f"not a layer that can be adapted.\nIt has {summary(sites)}."
            )
        raise TargetError(
            f'{setting}: no layer of {_name(model)} is called "{name}".\n'
            f"It has {summary(sites)}.{did_you_mean(name, [s.name for s in sites])}"
        )


def inside_modules(path: str, names: Collection[str]) -> bool:
    """Whether a path is one of the named modules or stands inside one (PEFT's rule)."""
    return any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", path) for name in names)


def _in_blocks(
    model: nn.Module,
    sites: Sequence[Site],
    indices: Collection[int] | int,
    layers_pattern: Collection[str] | str | None,
    target_modules: Collection[str] | str,
) -> list[Site]:
    """The targets in some blocks, and those that are named by their whole path (PEFT's rule)."""
    names = [] if isinstance(target_modules, str) else sorted(target_modules)
    by_path = [s for s in sites if s.path in names]
    targets = sites
    wanted = {indices} if isinstance(indices, int) else set(indices)
    lists = [layers_pattern] if isinstance(layers_pattern, str) else list(layers_pattern or [])
    if lists:
        stacks = [rf"(.*\.)?{pattern}\.\d+\..*" for pattern in lists]
        sites = [s for s in sites if any(expressions.fullmatch(one, s.path) for one in stacks)]
        if not sites:
            raise TargetError(f"layers_pattern: no target of {_name(model)} stands in {lists}.")
    present = {s.block for s in sites if s.block is not None}
    missing = sorted(wanted - present)
    if missing:
        there = f"{min(present)} to {max(present)}" if present else "no blocks at all"
        raise TargetError(
            f"layers_to_transform: {_name(model)} has no targets in block "
            f"{', '.join(map(str, missing))}; it has {there}."
        )
    kept = {s.path for s in [*sites, *by_path] if s.block in wanted or s in by_path}
    for name in names:
        hits = [s for s in targets if matches(s.path, [name])]
        if hits and not any(s.path in kept for s in hits):
            raise TargetError(
                f'layers_to_transform: nothing is left of the target "{name}" of {_name(model)}, '
                f"which is not in these blocks. Name it by its whole path ({hits[0].path}) to "
                "adapt it nevertheless, or leave it out."
            )
    return [s for s in targets if s.path in kept]


def inside(
    model: nn.Module, names: Iterable[str], modules: Collection[str] | str, setting: str
) -> list[str]:
    """The parameters that stand in modules, at any depth, that a setting names.

    Args:
        model: The model, for its name in messages.
        names: Paths of parameters.
        modules: Names or a regular expression, as for `select`.
        setting: What to call it in messages.

    Raises:
        TargetError: A name or the expression matches no module with such a parameter.
    """
    names = list(names)

    def hits(pattern: Collection[str] | str) -> list[str]:
        return [n for n in names if any(matches(p, pattern) for p in _parents(n))]

    for pattern in [modules] if isinstance(modules, str) else [[name] for name in sorted(modules)]:
        if not hits(pattern):
            shown = pattern if isinstance(pattern, str) else pattern[0]
            parts = {part for name in names for part in name.split(".")[:-1] if not part.isdigit()}
            raise TargetError(
                f'{setting}: no module of {_name(model)} called "{shown}" has parameters to '
                f"choose from.{did_you_mean(shown, parts)}"
            )
    return hits(modules)


def _parents(name: str) -> list[str]:
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def resolve_modules(
    model: nn.Module, paths: Sequence[str], names: Iterable[str], setting: str
) -> list[str]:
    """Paths of whole modules that names mean; PEFT's rule: a path that ends with the name.

    The plain suffix rule is what makes ``classifier`` also mean DistilBERT's
    ``pre_classifier``. Of nested matches only the outermost is kept.

    Args:
        model: The model, for its name in messages.
        paths: The modules there are to choose from: those of the plain model, for inside of
            adapters stand the names that users gave them.
        names: What to look for.
        setting: What to call it in messages.

    Raises:
        TargetError: A name matches no module.
    """
    found: list[str] = []
    for name in names:
        hits = [path for path in paths if path.endswith(name)]
        if not hits:
            leaves = {path.rpartition(".")[2] for path in paths}
            raise TargetError(
                f'{setting}: no module of {_name(model)} is called "{name}".'
                f"{did_you_mean(name, leaves)}"
            )
        found += [path for path in hits if path not in found]
    return [p for p in paths if p in found and not any(p.startswith(f"{q}.") for q in found)]


def summary(sites: Sequence[Site]) -> str:
    """Names of the layers with their counts: ``q_lin, k_lin (6 of each), pre_classifier``."""
    counts = Counter(s.name for s in sites)
    by_count: dict[int, list[str]] = {}
    for name, count in counts.items():
        by_count.setdefault(count, []).append(name)
    groups = []
    for count, names in sorted(by_count.items(), reverse=True):
        suffix = "" if count == 1 else f" ({count} of each)" if len(names) > 1 else f" ({count})"
        groups.append(", ".join(names) + suffix)
    return "; ".join(groups)


def _name(model: nn.Module) -> str:
    """What to call a model in a message: where it came from, else its class."""
    source = getattr(getattr(model, "config", None), "name_or_path", "")
    if Path(source).is_absolute():
        source = "/".join(Path(source).parts[-2:])
    return f'"{source}"' if source else type(model).__name__
