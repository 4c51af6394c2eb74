"""The adapters of one model: select, wrap, freeze, switch, merge, unload.

This is the only file that changes a model. What an adapter computes is the method's
business (``methods/``); which tensors go to disk under which names is ``export/``'s.

The base is never edited. Layers are wrapped in place, modules trained whole are copies
beside their originals, trained parameters of the base are copies put in the originals'
places, and merging swaps the weight of a layer for a new one. `Adapters.unload` puts
everything back: the model is then the one that came in, bit for bit.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lorafit.adapt.replace import Replacements
from lorafit.errors import AdapterError, did_you_mean
from lorafit.methods import method_of, methods
from lorafit.methods.base import (
    AdapterLayer,
    CallLayer,
    Method,
    MethodConfig,
    ModulesToSaveWrapper,
)
from lorafit.model.sites import Site, find_sites
from lorafit.model.targets import resolve_modules


class Adapters:
    """The named adapters of one model, changed in place.

    Args:
        model: Any module with linear layers or embeddings; it must not have adapters yet.

    Attributes:
        model: The model, with its layers wrapped while there are adapters.
        configs: The configuration of each adapter, by name.
        sites: The adapted places of each adapter, by name.
        whole: Paths of the modules that each adapter trains whole, by name.
        active: The adapters that take part in the forward pass.
        paths: The modules of the plain model; names in settings are looked up among these.
        names: The parameters of the plain model.
    """

    def __init__(self, model: nn.Module) -> None:
        if any(isinstance(m, AdapterLayer | ModulesToSaveWrapper) for m in model.modules()):
            raise AdapterError("this model has adapters already; unload them first.")
        # A compiled model runs what it was compiled from: that is what gets the layers.
        model = getattr(model, "_orig_mod", model)
        self.model = model
        self.configs: dict[str, MethodConfig] = {}
        self.sites: dict[str, list[Site]] = {}
        self.active: list[str] = []
        self.whole: dict[str, list[str]] = {}
        self.paths = [path for path, _ in model.named_modules() if path]
        self._all_sites = find_sites(model)
        self._requires_grad = {n: p.requires_grad for n, p in model.named_parameters()}
        self.names = list(self._requires_grad)
        self._saved = list(model.state_dict())
        self._replaced = Replacements(model)
        self._hooks: list[RemovableHandle] = []
        self._frozen: set[str] = set()
        self._disabled = False

    # Adding and removing ---------------------------------------------------------------

    def add(self, config: MethodConfig, name: str = "default") -> list[Site]:
        """Adds a freshly initialised adapter; the first one becomes active.

        Everything is resolved and checked before the model is touched; the configuration is
        copied, so that what its owner does with it later says nothing here. Initialisation
        draws from torch's global generator: seed it for a reproducible adapter.

        Returns:
            The adapted sites, in module order.

        Raises:
            TargetError: A pattern matches nothing.
            ConfigError: The method does not fit the model.
            AdapterError: The name is taken or not usable, or an adapter is merged.
        """
        self._check_new_name(name)
        self._check_unmerged("add an adapter")
        config = config.model_copy(deep=True)
        method = _method(config)
        names_of_whole = config.modules_to_save or []
        whole = resolve_modules(self.model, self.paths, names_of_whole, "modules_to_save")
        sites = method.select(self.model, self._all_sites, config)
        sites = [s for s in sites if not any(_within(s.path, path) for path in whole)]
        names = [n for n in self.names if not any(_within(n, path) for path in whole)]
        names = method.parameters(self.model, names, sites, config)
        self._check_layers(config, sites)
        config = method.resolved(self.model, sites, names, config)

        first, hooks, placed = not self.configs, len(self._hooks), list[str]()
        if first:
            self.model.requires_grad_(False)
        try:
            self._replaced.place([])  # what is copied below are the originals
            self._wrap(name, config, method, sites, placed)
            self._copy(name, whole, placed)
            self._replaced.add(name, names)
        except Exception:
            # A start that cannot be computed is found out here only; nothing of it stays.
            self._take_back(name, placed, hooks)
            if first:
                self._restore_requires_grad()
            raise
        self.configs[name], self.sites[name], self.whole[name] = config, sites, whole
        if config.inference_mode:
            self._frozen.add(name)
        self._switch(self.active or [name])
        self._train([name])
        return sites

    def selected(self, config: MethodConfig) -> list[Site]:
        """The sites that `add` would adapt; nothing is made or changed.

        Raises:
            ConfigError: As for `add`.
        """
        return _method(config).select(self.model, self._all_sites, config.model_copy(deep=True))

    def calibrate(self, backward: Callable[[], None], name: str = "default") -> None:
        """Lets a method choose with gradients of the base weights what it trains.

        Args:
            backward: Computes the loss of some examples and its gradients; called once.
            name: The adapter, which must be fresh.
        """
        config, method = self.configs[name], _method(self.configs[name])
        layers: dict[str, nn.Module] = dict(self.layers_of(name))
        weights = {p: x.weight for p, x in layers.items() if isinstance(x, AdapterLayer)}
        try:
            for weight in weights.values():
                weight.requires_grad_(True)
            backward()
            zero = torch.zeros(())
            gradients = {p: zero if w.grad is None else w.grad for p, w in weights.items()}
            gradients = {p: g.expand_as(weights[p]) for p, g in gradients.items()}
        finally:
            for weight in weights.values():
                weight.requires_grad_(False)
                weight.grad = None
            self.model.zero_grad(set_to_none=True)
        adapted = {p: x for p, x in layers.items() if isinstance(x, AdapterLayer)}
        self.configs[name] = method.calibrate(adapted, gradients, name, config)
        self._switch(self.active)
        self._train([name])

    def delete(self, name: str) -> None:
        """Forgets one adapter. If it was the only active one, the first left becomes active.

        Raises:
            AdapterError: There is no such adapter, or an adapter is merged.
        """
        self._check_known([name])
        self._check_unmerged("delete an adapter")
        left = [n for n in self.active if n != name]
        active = left or [n for n in self.configs if n != name][:1]
        for layer in self.layers():
            layer.delete_adapter(name)
        for wrapper in self._wrappers():
            if name in wrapper.modules_to_save:
                del wrapper.modules_to_save[name]
        for entries in (self.configs, self.sites, self.whole):
            del entries[name]
        self._frozen.discard(name)
        self._switch(active)
        self._train([n for n in active if n not in left])
        self._replaced.delete(name)

    def unload(self, merge: bool = False, names: Sequence[str] | None = None) -> nn.Module:
        """Takes the wrappers off.

        Args:
            merge: Leave the change of the adapters in the weights. Otherwise the model is
                the one that came in, bit for bit.
            names: The adapters to merge; ``None``: the active ones.

        Returns:
            The plain model, ``requires_grad`` flags as they were before.
        """
        if merge:
            self._check_known(names or [])
            if names is not None:
                self.unmerge()
                self.set(names)
            self.merge()
        else:
            self.unmerge()
            self.set([])
        # From inside out: what a wrapper stands around may have wrappers within.
        for path, module in reversed(list(self.model.named_modules())):
            if isinstance(module, AdapterLayer):
                self._put(path, module.base_layer)
            elif isinstance(module, ModulesToSaveWrapper):
                kept = module.current
                if merge:
                    kept = kept.to(next(module.original_module.parameters()).dtype)
                self._put(path, kept)
        self.configs, self.sites, self.active, self.whole = {}, {}, [], {}
        self._replaced, self._frozen = Replacements(self.model), set()
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        self._restore_requires_grad()
        for parameter in self.model.parameters():
            parameter.grad = None
        return self.model

    # Switching -------------------------------------------------------------------------

    def set(self, names: str | Sequence[str], inference_mode: bool | None = None) -> None:
        """Makes adapters active and trainable, all others inactive and frozen.

        Args:
            names: One adapter or several; their updates add up. Only one of them may have
                modules or parameters of its own, for these cannot add up.
            inference_mode: ``True`` freezes the active ones too, ``False`` makes them
                trainable; ``None`` leaves what each was added with.

        Raises:
            AdapterError: A name is unknown, two adapters want the same module, or parameters
                would change inside a merged layer.
        """
        names = [names] if isinstance(names, str) else list(names)
        owners = self.owners(names)
        if len(owners) > 1:
            raise AdapterError(
                f"{' and '.join(owners)} both have modules or biases of their own; only one of "
                "them can be active."
            )
        self._check_places(names)
        if inference_mode is not None:
            for name in names:
                (self._frozen.add if inference_mode else self._frozen.discard)(name)
        self._switch(names)
        self._train(list(self.configs))

    @contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """While open, the model computes what the base model computes, bit for bit."""
        merged = list(self.merged)
        self.unmerge()
        self.disable(True)
        try:
            yield self.model
        finally:
            self.disable(False)
            if merged:
                self.merge(merged)

    def disable(self, disabled: bool) -> None:
        """Switches all adapters off, or on again."""
        self._check_places([] if disabled else self.active)
        self._disabled = disabled
        for layer in self.layers():
            layer.disable_adapters = disabled
        for wrapper in self._wrappers():
            wrapper.disable_adapters = disabled
        self._place()

    def merge(self, names: Sequence[str] | None = None, safe_merge: bool = False) -> None:
        """Puts adapters into the weights; ``None``: the active ones. See `AdapterLayer.merge`.

        Raises:
            AdapterError: A name is unknown, or an adapter cannot be merged (the message says
                why); with ``safe_merge`` also for non-finite results.
        """
        self._check_known(names or [])
        layers = list(self.layers())
        merged = [list(layer.merged_adapters) for layer in layers]
        try:
            for layer in layers:
                layer.merge(safe_merge, names)
        except AdapterError:
            # All layers or none: half a merge would be a model that nobody asked for.
            for layer, before in zip(layers, merged, strict=True):
                layer.unmerge()
                layer.merge(adapter_names=before)
            raise

    def unmerge(self) -> None:
        """Restores the weights bit for bit."""
        for layer in self.layers():
            layer.unmerge()

    def unmergeable(self, names: Sequence[str] | None = None) -> str:
        """Why adapters cannot be merged, ``None``: the active ones; empty: they can."""
        names = self.active if names is None else names
        reasons = (x.unmergeable for x in self.layers() if any(map(x.has_adapter, names)))
        return next(filter(None, reasons), "")

    @property
    def merged(self) -> list[str]:
        """The adapters whose change is in the weights now."""
        return next((layer.merged_adapters for layer in self.layers() if layer.merged), [])

    # Tensors ---------------------------------------------------------------------------

    def layers(self) -> Iterator[AdapterLayer]:
        """The wrapped layers, in module order."""
        return (m for m in self.model.modules() if isinstance(m, AdapterLayer))

    def layers_of(self, name: str) -> Iterator[tuple[str, AdapterLayer]]:
        """The layers with one adapter, by their path in the model."""
        self._check_known([name])
        for site in self.sites[name]:
            layer = self.model.get_submodule(self._place_inside(site.path))
            assert isinstance(layer, AdapterLayer)
            yield site.path, layer

    def owners(self, names: Sequence[str]) -> list[str]:
        """Those of some adapters that train modules whole or parameters of the base."""
        self._check_known(names)
        return [name for name in names if self.whole[name] or self._replaced.of(name)]

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """All parameters of one adapter by their path in the model, trained or not."""
        found: dict[str, nn.Parameter] = {}
        for path, layer in self.layers_of(name):
            place = self._place_inside(path)
            for key, parameter in layer.parameters_of(name).items():
                found[f"{place}.{key}"] = parameter
        for path, module in self._whole_of(name):
            place = self._place_of(path)
            for key, parameter in module.named_parameters():
                found[f"{place}.modules_to_save.{name}.{key}"] = parameter
        for plain, parameter in self._replaced.of(name).items():
            found[self._replaced.path(plain)] = parameter
        return found

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train now, by their path in the model."""
        return {
            path: parameter
            for name in self.active
            for path, parameter in self.parameters_of(name).items()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def updates(self, name: str = "default") -> Iterator[tuple[str, torch.Tensor]]:
        """How one adapter changes the weight matrices of layers, one by one.

        Embeddings and modules trained whole are left out, and methods that change no weight.

        Yields:
            The path of the layer and the change, float32, in the weight's orientation.
        """
        matrices = {site.path for site in self._all_sites if site.kind != "embedding"}
        for path, layer in self.layers_of(name):
            if path in matrices and not layer.unmergeable:
                yield path, layer.delta_weight(name)
        for plain, parameter in self._replaced.of(name).items():
            path, _, key = plain.rpartition(".")
            if key == "weight" and path in matrices:
                yield path, parameter.float() - self._replaced.original(plain).float()

    def state_dict(self, name: str = "default") -> dict[str, torch.Tensor]:
        """One adapter's tensors under PEFT's names, less the ``base_model.model.`` prefix.

        Buffers of modules trained whole are included. Tensors share memory with the model.
        """
        state: dict[str, torch.Tensor] = {}
        for path, layer in self.layers_of(name):
            for key, tensor in layer.adapter_state(name).items():
                state[f"{path}.{key}"] = tensor
        for path, module in self._whole_of(name):
            for key, tensor in module.state_dict().items():
                state[f"{path}.{key}"] = tensor
        for key, parameter in self._replacements(name).items():
            state[key] = parameter.detach()
        return state

    def saved_names(self, name: str = "default") -> dict[str, str]:
        """What one adapter's parameters are called in `state_dict`, by their path in the model."""
        names: dict[str, str] = {}
        for path, layer in self.layers_of(name):
            place = self._place_inside(path)
            names |= {f"{place}.{k}": f"{path}.{v}" for k, v in layer.saved_names(name).items()}
        for path, module in self._whole_of(name):
            place = f"{self._place_of(path)}.modules_to_save.{name}"
            names |= {f"{place}.{key}": f"{path}.{key}" for key in module.state_dict()}
        method = _method(self.configs[name])
        for plain in self._replaced.of(name):
            names[self._replaced.path(plain)] = method.saved_name(plain, self.sites[name])
        return names

    def base_state(self) -> dict[str, torch.Tensor]:
        """The plain model's state, whatever adapters are active or merged; shares its memory."""
        state: dict[str, torch.Tensor] = {}
        for key in self._saved:
            path, _, own = key.rpartition(".")
            module = self.model.get_submodule(self._place_of(path)) if path else self.model
            value: torch.Tensor | None = None
            while isinstance(module, AdapterLayer | ModulesToSaveWrapper):
                if isinstance(module, ModulesToSaveWrapper):
                    module = module.original_module
                else:
                    value = module.pristine(own)
                    module = module.base_layer
            if self._replaced.has(key):
                value = self._replaced.original(key)
            if value is None:
                value = module.state_dict(keep_vars=True)[own]
            state[key] = value.detach()
        return state

    def load_base_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copies tensors, named as in `base_state`, into the plain model; adapters stay.

        Raises:
            AdapterError: There is no such name, or a shape differs; nothing is copied then. Or
                an adapter is merged: the model would go on computing with the old weights.
        """
        self._check_unmerged("load weights of the base")
        own = self.base_state()
        problems = [f"unexpected: {key}" for key in state if key not in own]
        problems += [
            f"shape of {key}: {tuple(value.shape)}, the model needs {tuple(own[key].shape)}"
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ]
        if problems:
            raise AdapterError("the weights do not fit the base:\n" + "\n".join(problems))
        with torch.no_grad():
            for key, value in state.items():
                own[key].copy_(value)

    def shared_state(self, name: str = "default") -> dict[str, torch.Tensor]:
        """Frozen tensors that one adapter's layers share, less PEFT's ``base_model.`` prefix."""
        shared: dict[str, torch.Tensor] = {}
        for _, layer in self.layers_of(name):
            shared |= layer.shared_state(name)
        return shared

    def load_state_dict(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors into one adapter. All of them are checked before any is copied.

        Raises:
            AdapterError: Names are missing or unexpected, a shape differs, or whole numbers or
                truth values stand where weights should; it lists them. Or
                an adapter is merged: the model would go on computing with the old values.
        """
        self._check_unmerged("load tensors into an adapter")
        own = self.state_dict(name)
        problems = [f"missing: {key}" for key in own if key not in tensors]
        problems += [f"unexpected: {key}" for key in tensors if key not in own]
        problems += [
            f"shape of {key}: {tuple(tensors[key].shape)}, the model needs {tuple(own[key].shape)}"
            for key in own
            if key in tensors and tensors[key].shape != own[key].shape
        ]
        problems += [
            f"numbers of {key}: {_kind(tensors[key])}, the model needs {_kind(own[key])}"
            for key in own
            if key in tensors and tensors[key].is_floating_point() != own[key].is_floating_point()
        ]
        if problems:
            shown = "\n".join(problems[:10])
            more = f"\n... and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise AdapterError(f"the adapter does not fit this model:\n{shown}{more}")
        for path, layer in self.layers_of(name):
            keys = layer.adapter_state(name)
            layer.load_adapter_state(name, {key: tensors[f"{path}.{key}"] for key in keys})
        with torch.no_grad():
            for path, module in self._whole_of(name):
                for key, tensor in module.state_dict().items():
                    tensor.copy_(tensors[f"{path}.{key}"])
            for key, parameter in self._replacements(name).items():
                parameter.copy_(tensors[key])

    # Pieces ----------------------------------------------------------------------------

    def _wrap(
        self,
        name: str,
        config: MethodConfig,
        method: Method,
        sites: Sequence[Site],
        placed: list[str],
    ) -> None:
        """Makes an adapter's layers; notes in ``placed`` where wrappers are new."""
        for site in sites:
            place = self._place_inside(site.path)
            layer = self.model.get_submodule(place)
            if not isinstance(layer, AdapterLayer):
                layer = method.wrap(layer, site)
                layer.train(self.model.training)
                self._put(place, layer)
                placed.append(place)
                if isinstance(layer, CallLayer):
                    self._hook(layer)
            layer.add_adapter(name, config, site)
            layer.train(layer.training)

    def _copy(self, name: str, whole: Sequence[str], placed: list[str]) -> None:
        """Copies the modules that an adapter trains whole; ``placed`` as above."""
        for path in whole:
            place = self._place_of(path)
            wrapper = self.model.get_submodule(place)
            if not isinstance(wrapper, ModulesToSaveWrapper):
                wrapper = ModulesToSaveWrapper(wrapper)
                wrapper.train(self.model.training)
                self._put(place, wrapper)
                placed.append(place)
            wrapper.modules_to_save[name] = _plain_copy(wrapper.original_module).float()

    def _take_back(self, name: str, placed: Sequence[str], hooks: int) -> None:
        """Takes an adapter off of which only some layers were made."""
        for handle in self._hooks[hooks:]:
            handle.remove()
        del self._hooks[hooks:]
        for layer in self.layers():
            layer.delete_adapter(name)
        for wrapper in self._wrappers():
            if name in wrapper.modules_to_save:
                del wrapper.modules_to_save[name]
        for place in reversed(placed):
            module = self.model.get_submodule(place)
            inner = "base_layer" if isinstance(module, AdapterLayer) else "original_module"
            self._put(place, module.get_submodule(inner))
        self._replaced.delete(name)
        self._place()

    def _restore_requires_grad(self) -> None:
        """Has the plain model's parameters train as before there were adapters."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, True))

    def _switch(self, names: Sequence[str]) -> None:
        """Makes adapters active; what trains is left alone."""
        self.active = list(names)
        for layer in self.layers():
            layer.active_adapters = list(names)
        for wrapper in self._wrappers():
            wrapper.active_adapters = [n for n in names if n in wrapper.modules_to_save]
        self._place()

    def _train(self, names: Sequence[str]) -> None:
        """Makes those of some adapters trainable that are active, and freezes the others."""
        for name in names:
            trains = name in self.active and name not in self._frozen
            for parameter in self.parameters_of(name).values():
                parameter.requires_grad_(trains)

    def _wrappers(self) -> Iterator[ModulesToSaveWrapper]:
        return (m for m in self.model.modules() if isinstance(m, ModulesToSaveWrapper))

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.model.get_submodule(parent), child, module)

    def _whole_of(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """The copies that one adapter trains whole, by the originals' paths in the plain model."""
        for path in self.whole[name]:
            wrapper = self.model.get_submodule(self._place_of(path))
            assert isinstance(wrapper, ModulesToSaveWrapper)
            yield path, wrapper.modules_to_save[name]

    def _place_of(self, path: str) -> str:
        """Where a module of the plain model stands now, its own wrappers included."""
        module, place = self.model, []
        for part in path.split("."):
            while isinstance(module, AdapterLayer | ModulesToSaveWrapper):
                inner = "base_layer" if isinstance(module, AdapterLayer) else "original_module"
                place.append(inner)
                module = module.get_submodule(inner)
            place.append(part)
            module = module.get_submodule(part)
        return ".".join(place)

    def _place_inside(self, path: str) -> str:
        """Where the adapter layer of a module stands: within what trains the module whole."""
        place = self._place_of(path)
        whole = isinstance(self.model.get_submodule(place), ModulesToSaveWrapper)
        return f"{place}.original_module" if whole else place

    def _replacements(self, name: str) -> dict[str, nn.Parameter]:
        """The base parameters an adapter trains, under their names on disk."""
        method = _method(self.configs[name])
        return {
            method.saved_name(plain, self.sites[name]): parameter
            for plain, parameter in self._replaced.of(name).items()
        }

    def _place(self) -> None:
        """Puts the active adapter's parameters, or the originals, into the modules."""
        self._replaced.place([] if self._disabled else self.active)

    def _check_places(self, names: Sequence[str]) -> None:
        """Refuses to swap a parameter whose merged value is in the layer now."""
        changed = self._replaced.changed_by(names)
        for layer in self.layers():
            if layer.merged and any(module is layer.base_layer for module, _ in changed):
                self._check_unmerged("switch to other parameters of the base")

    def _check_layers(self, config: MethodConfig, sites: Sequence[Site]) -> None:
        """Refuses a layer around which another method's adapters stand already."""
        for name, other in self.configs.items():
            taken = {site.path for site in self.sites[name]} & {site.path for site in sites}
            if taken and other.peft_type != config.peft_type:
                raise AdapterError(
                    f'"{name}" ({other.peft_type}) already adapts {min(taken)}; adapters of '
                    f"different methods ({config.peft_type}) cannot share a layer."
                )
            kinds = {site.path: site.kind for site in self.sites[name]}
            for site in sites:
                if kinds.get(site.path, site.kind) != site.kind:
                    raise AdapterError(
                        f'"{name}" adapts {site.path} in another way (its {kinds[site.path]}), and '
                        "two ways cannot share a layer."
                    )

    def _hook(self, layer: CallLayer) -> None:
        """Has the model pass its arguments and its output through a layer."""
        hooks, module = _Hooks(layer), layer.called(self.model)
        self._hooks.append(module.register_forward_pre_hook(hooks.before, with_kwargs=True))
        self._hooks.append(module.register_forward_hook(hooks.after))

    def _check_new_name(self, name: str) -> None:
        if not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise AdapterError(
                f'"{name}" cannot be the name of an adapter; take letters and digits.'
            )
        if name in self.configs:
            raise AdapterError(f'there is an adapter "{name}" already; delete it first.')

    def _check_known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.configs:
                known = ", ".join(self.configs) or "none"
                raise AdapterError(
                    f'there is no adapter "{name}"; there is {known}.'
                    f"{did_you_mean(name, self.configs)}"
                )

    def _check_unmerged(self, what: str) -> None:
        if self.merged:
            raise AdapterError(f"{', '.join(self.merged)} is merged; unmerge before you {what}.")


def _plain_copy(module: nn.Module) -> nn.Module:
    """A copy of a module without the wrappers of other adapters."""
    holder = nn.ModuleDict({"module": copy.deepcopy(module)})
    for path, part in reversed(list(holder.named_modules())):
        if isinstance(part, AdapterLayer | ModulesToSaveWrapper):
            plain = part.base_layer if isinstance(part, AdapterLayer) else part.original_module
            parent, _, child = path.rpartition(".")
            setattr(holder.get_submodule(parent), child, plain)
    return holder["module"]


def _within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}.")


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _method(config: MethodConfig) -> Method:
    name = method_of(config.peft_type)
    assert name is not None
    return methods[name]()


class _Hooks:
    """A layer's part in the model's call; methods, so that a copied model's hooks are its own."""

    def __init__(self, layer: CallLayer) -> None:
        self.layer = layer

    def before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = list(inspect.signature(model.forward).parameters)
        return (), self.layer.before_call(dict(zip(names, args, strict=False)) | kwargs)

    def after(self, _model: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return self.layer.after_call(output)
