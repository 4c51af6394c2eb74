"""What stands on a model as adapters: layers and parameters, tensors to save and to load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from lorafit.adapt.places import place_inside, place_of
from lorafit.adapt.replace import Replacements
from lorafit.errors import AdapterError, did_you_mean
from lorafit.methods import method_of, methods
from lorafit.methods.base import AdapterLayer, Method, MethodConfig, ModulesToSaveWrapper
from lorafit.model.sites import Site, find_sites


class AdapterState:
    """The layers, parameters and tensors of the adapters on one model.

    `Adapters` puts them there.

    Args:
        model: The plain model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.configs: dict[str, MethodConfig] = {}
        self.sites: dict[str, list[Site]] = {}
        self.active: list[str] = []
        self.whole: dict[str, list[str]] = {}
        self.paths = [path for path, _ in model.named_modules() if path]
        self._all_sites = find_sites(model)
        self.names = [name for name, _ in model.named_parameters()]
        self._saved = list(model.state_dict())
        self._replaced = Replacements(model)

    def layers(self) -> Iterator[AdapterLayer]:
        """The wrapped layers, in module order."""
        return (m for m in self.model.modules() if isinstance(m, AdapterLayer))

    def layers_of(self, name: str) -> Iterator[tuple[str, AdapterLayer]]:
        """The layers with one adapter, by their path in the model."""
        self._check_known([name])
        for site in self.sites[name]:
            layer = self.model.get_submodule(place_inside(self.model, site.path))
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
            place = place_inside(self.model, path)
            for key, parameter in layer.parameters_of(name).items():
                found[f"{place}.{key}"] = parameter
        for path, module in self._whole_of(name):
            place = place_of(self.model, path)
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

        Embeddings, their trained rows and modules trained whole are left out, and methods that
        change no weight.

        Yields:
            The path of the layer and the change, float32, in the weight's orientation.
        """
        matrices = {site.path for site in self._all_sites if site.kind != "embedding"}
        rows = {site.path for site in self.sites[name] if site.kind == "tokens"}
        for path, layer in self.layers_of(name):
            if path in matrices - rows and not layer.unmergeable:
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
            place = place_inside(self.model, path)
            names |= {f"{place}.{k}": f"{path}.{v}" for k, v in layer.saved_names(name).items()}
        for path, module in self._whole_of(name):
            place = f"{place_of(self.model, path)}.modules_to_save.{name}"
            names |= {f"{place}.{key}": f"{path}.{key}" for key in module.state_dict()}
        method = method_for(self.configs[name])
        for plain in self._replaced.of(name):
            names[self._replaced.path(plain)] = method.saved_name(plain, self.sites[name])
        return names

    def base_state(self) -> dict[str, torch.Tensor]:
        """The plain model's state, whatever adapters are active or merged; shares its memory."""
        state: dict[str, torch.Tensor] = {}
        for key in self._saved:
            path, _, own = key.rpartition(".")
            module = self.model.get_submodule(place_of(self.model, path)) if path else self.model
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

    @property
    def merged(self) -> list[str]:
        """The adapters whose change is in the weights now."""
        return next((layer.merged_adapters for layer in self.layers() if layer.merged), [])

    def _whole_of(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """The copies that one adapter trains whole, by the originals' paths in the plain model."""
        for path in self.whole[name]:
            wrapper = self.model.get_submodule(place_of(self.model, path))
            assert isinstance(wrapper, ModulesToSaveWrapper)
            yield path, wrapper.modules_to_save[name]

    def _replacements(self, name: str) -> dict[str, nn.Parameter]:
        """The base parameters an adapter trains, under their names on disk."""
        method = method_for(self.configs[name])
        return {
            method.saved_name(plain, self.sites[name]): parameter
            for plain, parameter in self._replaced.of(name).items()
        }

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


def method_for(config: MethodConfig) -> Method:
    """The method that a configuration is of."""
    name = method_of(config.peft_type)
    assert name is not None
    return methods[name]()


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
