"""From defaults, a YAML file, ``--set``, flags or keywords to one checked `Config`.

Each source becomes a *layer*: dotted keys (``train.learning_rate``) to values that know
where they came from. `resolve` puts layers on top of one another, later ones winning,
checks every key and every value, and returns the `Config` together with the origin of
each of its values: `Settings`, which travel as one from there on. The command line and
`lorafit.api` use the same functions, so both refuse the same things with the same words.
"""

from __future__ import annotations

from lorafit.settings.call import LIVE, from_call
from lorafit.settings.order import check_order
from lorafit.settings.resolve import resolve
from lorafit.settings.resolved import AUTO, DEFAULT, Settings
from lorafit.settings.sources import (
    Layer,
    Value,
    from_config,
    from_file,
    from_flags,
    from_keywords,
    from_sets,
)

__all__ = [
    "AUTO",
    "DEFAULT",
    "LIVE",
    "Layer",
    "Settings",
    "Value",
    "check_order",
    "from_call",
    "from_config",
    "from_file",
    "from_flags",
    "from_keywords",
    "from_sets",
    "resolve",
]
