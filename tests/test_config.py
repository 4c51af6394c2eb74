"""Every setting says what it means."""

from __future__ import annotations

import pytest

from lorafit.config import Config
from lorafit.settings.keys import sections
from lorafit.settings.meanings import Group, groups, meanings


@pytest.mark.parametrize(
    "group", list(groups()), ids=lambda group: group.method or group.model.__name__
)
def test_every_setting_has_its_meaning(group: Group) -> None:
    known = meanings(group.model)
    assert [name for name in group.names if not known.get(name, "").endswith((".", ":"))] == []


def test_every_section_has_its_meaning() -> None:
    assert sections().keys() - meanings(Config).keys() == set()
