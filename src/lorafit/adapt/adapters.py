"""The adapters of one model: select, wrap, freeze, switch, merge, unload.

Only this file, and `places`, `hooks` and `replace` for it, change a model. What an adapter
computes is the method's business (``methods/``); which tensors go to disk under which names is
``export/``'s.

The base is never edited. Layers are wrapped in place, modules trained whole are copies
beside their originals, trained parameters of the base are copies put in the originals'
places, and merging swaps the weight of a layer for a new one. `Adapters.unload` puts
everything back: the model is then the one that came in, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lorafit.adapt.hooks import hook
from lorafit.adapt.places import place_inside, place_of, plain_copy, put, within, wrappers
from lorafit.adapt.replace import Replacements
from lorafit.adapt.state import AdapterState, method_for
from lorafit.errors import AdapterError
from lorafit.methods.base import AdapterLayer, CallLayer, Method, MethodConfig, ModulesToSaveWrapper
from lorafit.model.sites import Site
from lorafit.model.targets import resolve_modules


class Adapters(AdapterState):
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
        super().__init__(model)
        self._requires_grad = {n: p.requires_grad for n, p in model.named_parameters()}
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
        method = method_for(config)
        names_of_whole = config.modules_to_save or []
        whole = resolve_modules(self.model, self.paths, names_of_whole, "modules_to_save")
        sites = method.select(self.model, self._all_sites, config)
        sites = [s for s in sites if not any(within(s.path, path) for path in whole)]
        names = [n for n in self.names if not any(within(n, path) for path in whole)]
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
        return method_for(config).select(self.model, self._all_sites, config.model_copy(deep=True))

    def calibrate(self, backward: Callable[[], None], name: str = "default") -> None:
        """Lets a method choose with gradients of the base weights what it trains.

        Args:
            backward: Computes the loss of some examples and its gradients; called once.
            name: The adapter, which must be fresh.
        """
        config, method = self.configs[name], method_for(self.configs[name])
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
        for wrapper in wrappers(self.model):
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
                put(self.model, path, module.base_layer)
            elif isinstance(module, ModulesToSaveWrapper):
                kept = module.current
                if merge:
                    kept = kept.to(next(module.original_module.parameters()).dtype)
                put(self.model, path, kept)
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
        for wrapper in wrappers(self.model):
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
            place = place_inside(self.model, site.path)
            layer = self.model.get_submodule(place)
            if not isinstance(layer, AdapterLayer):
                layer = method.wrap(layer, site)
                layer.train(self.model.training)
                put(self.model, place, layer)
                placed.append(place)
                if isinstance(layer, CallLayer):
                    self._hooks += hook(self.model, layer)
            method.add(layer, name, config, site)
            layer.train(layer.training)

    def _copy(self, name: str, whole: Sequence[str], placed: list[str]) -> None:
        """Copies the modules that an adapter trains whole; ``placed`` as above."""
        for path in whole:
            place = place_of(self.model, path)
            wrapper = self.model.get_submodule(place)
            if not isinstance(wrapper, ModulesToSaveWrapper):
                wrapper = ModulesToSaveWrapper(wrapper)
                wrapper.train(self.model.training)
                put(self.model, place, wrapper)
                placed.append(place)
            wrapper.modules_to_save[name] = plain_copy(wrapper.original_module).float()

    def _take_back(self, name: str, placed: Sequence[str], hooks: int) -> None:
        """Takes an adapter off of which only some layers were made."""
        for handle in self._hooks[hooks:]:
            handle.remove()
        del self._hooks[hooks:]
        for layer in self.layers():
            layer.delete_adapter(name)
        for wrapper in wrappers(self.model):
            if name in wrapper.modules_to_save:
                del wrapper.modules_to_save[name]
        for place in reversed(placed):
            module = self.model.get_submodule(place)
            inner = "base_layer" if isinstance(module, AdapterLayer) else "original_module"
            put(self.model, place, module.get_submodule(inner))
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
        for wrapper in wrappers(self.model):
            wrapper.active_adapters = [n for n in names if n in wrapper.modules_to_save]
        self._place()

    def _train(self, names: Sequence[str]) -> None:
        """Makes those of some adapters trainable that are active, and freezes the others."""
        for name in names:
            trains = name in self.active and name not in self._frozen
            for parameter in self.parameters_of(name).values():
                parameter.requires_grad_(trains)

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

    def _check_new_name(self, name: str) -> None:
        if not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise AdapterError(
                f'"{name}" cannot be the name of an adapter; take letters and digits.'
            )
        if name in self.configs:
            raise AdapterError(f'there is an adapter "{name}" already; delete it first.')
