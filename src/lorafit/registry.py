"""Named plug-ins: a decorator, a folder scan, and entry points.

A new method or task is one new file: the file decorates its class, the folder is
scanned on the first look-up, and nothing else has to change. Other packages add
theirs through the entry-point groups ``lorafit.methods`` and ``lorafit.tasks``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lorafit.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to plug-ins of one kind, found in one package.

    Args:
        kind: What the plug-ins are, in the singular; used in messages.
        package: The package whose modules are imported on the first look-up.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._providers: dict[str, Callable[[str], T]] = {}
        self._provided: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorates a plug-in with the name that users write.

        Raises:
            ConfigError: Another plug-in has this name.
        """

        def decorate(item: T) -> T:
            if self._items.get(name, item) is not item:
                raise ConfigError(f'two {self.kind}s are called "{name}"; give one another name')
            self._items[name] = item
            return item

        return decorate

    def provide(self, prefix: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
        """Decorates a function that makes the plug-ins called ``PREFIX:NAME`` from NAME."""

        def decorate(provider: Callable[[str], T]) -> Callable[[str], T]:
            self._providers[prefix] = provider
            return provider

        return decorate

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for entry in entry_points(group=self.package):
            self.register(entry.name)(entry.load())

    def __getitem__(self, name: str) -> T:
        """Looks a plug-in up.

        Raises:
            ConfigError: There is none of this name; the message lists those there are.
        """
        self._scan()
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self._providers:
            if name not in self._provided:
                self._provided[name] = self._providers[prefix](rest)
            return self._provided[name]
        if name not in self._items:
            known = ", ".join(sorted(self._items))
            close = did_you_mean(name, self._items)
            raise ConfigError(f'there is no {self.kind} "{name}"; there is {known}.{close}')
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._items
