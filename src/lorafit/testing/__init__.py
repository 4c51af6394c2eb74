"""Tests for code that extends lorafit; they need pytest and peft (``lorafit[testing]``).

>>> from lorafit.testing import MethodChecks, TaskChecks
>>> class TestMine(MethodChecks):
...     method = "mine"
...
...     def parameter_count(self, model, base, adapters):
...         return sum(site.d_out for site in adapters.sites["default"])
>>> class TestMyTask(TaskChecks):
...     task = "my_task"
...
...     def row(self, said):
...         return {"text": " ".join(said), "label": "good" if "good" in said else "bad"}
"""

from __future__ import annotations

import pytest

# Before the import: pytest shows what the two sides of a failed assertion were.
for _module in ("methods", "subject", "tasks"):
    pytest.register_assert_rewrite(f"lorafit.testing.{_module}")

from lorafit.testing.methods import MethodChecks  # noqa: E402
from lorafit.testing.tasks import TaskChecks  # noqa: E402

__all__ = ["MethodChecks", "TaskChecks"]
