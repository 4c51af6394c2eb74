"""Tests for code that extends lorafit; they need pytest and peft (``lorafit[testing]``).

>>> from lorafit.testing import MethodChecks
>>> class TestMine(MethodChecks):
...     method = "mine"
...
...     def parameter_count(self, model, base, adapters):
...         return sum(site.d_out for site in adapters.sites["default"])
"""

from __future__ import annotations

import pytest

# Before the import: pytest shows what the two sides of a failed assertion were.
pytest.register_assert_rewrite("lorafit.testing.methods")

from lorafit.testing.methods import MethodChecks  # noqa: E402

__all__ = ["MethodChecks"]
