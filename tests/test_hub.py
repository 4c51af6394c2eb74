"""Where the Hub does not answer, its clients are told so, once and soon."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from lorafit import hub
from lorafit.config import DataConfig, ModelConfig
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError, ModelError
from lorafit.model.kind import kind_of_model


class Client:
    """Stands in for the Hub's client; counts what it is asked."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, 0

    def head(self, url: str, timeout: float) -> None:
        self.asked += 1
        assert (url, timeout) == (constants.ENDPOINT, hub.SECONDS)
        if self.error is not None:
            raise self.error


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As if nobody had said that there is no network."""
    for switch in (constants, datasets.config):
        monkeypatch.setattr(switch, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub.answers.cache_clear()
    yield monkeypatch
    hub.answers.cache_clear()


def switches() -> tuple[Any, Any]:
    return constants.is_offline_mode(), datasets.config.HF_HUB_OFFLINE


def use(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> Client:
    client = Client(error)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: client)
    return client


def test_no_answer_is_one_warning_and_offline_for_the_while(
    online: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = use(online, OSError("Name or service not known."))
    for _ in range(2):
        with hub.asked():
            assert switches() == (True, True)
        assert switches() == (False, False)
    assert client.asked == 1
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "does not answer (Name or service not known): only what was" in record.getMessage()


def test_an_answer_changes_nothing(online: pytest.MonkeyPatch) -> None:
    client = use(online, None)
    with hub.asked():
        assert switches() == (False, False)
    assert client.asked == 1


def test_nothing_is_asked_without_need(online: pytest.MonkeyPatch) -> None:
    client = use(online, None)
    with hub.asked(False):
        assert switches() == (False, False)
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.asked():
        assert constants.is_offline_mode()
    assert client.asked == 0


def test_models_and_data_of_the_hub_do_not_wait_for_it(
    online: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = use(online, OSError("no network"))
    with pytest.raises(ModelError, match="the Hub cannot be reached"):
        kind_of_model(ModelConfig(name_or_path="owner/none-such"))
    with pytest.raises(DataError, match="Without a network, give a local file"):
        load_splits("owner/none-such", DataConfig(path="owner/none-such"))
    assert client.asked == 1
    assert not [record for record in caplog.records if "Retrying" in record.getMessage()]
