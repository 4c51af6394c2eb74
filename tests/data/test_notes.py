from __future__ import annotations

import logging

import pytest

from lorafit.data.notes import SPEAKERS, noting

log = logging.getLogger("lorafit.data.carve")


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_everything_is_kept_and_only_what_was_shown_is_shown(level, caplog):
    before = {name: logging.getLogger(name).level for name in SPEAKERS}
    with caplog.at_level(level, "lorafit"), noting() as notes:
        log.warning("dropped %s rows", 3)
        log.info("no test split")
        log.info("no test split")
        logging.getLogger("lorafit.tasks.parts.labels").info("2 classes")
        logging.getLogger("lorafit.engine").info("of no interest here")
    assert notes.warnings == ["dropped 3 rows"]
    assert notes.facts == ["no test split", "2 classes"]
    assert ("no test split" in caplog.text) == (level == logging.INFO)
    assert ("dropped 3 rows" in caplog.text) == (level == logging.INFO)
    for name in SPEAKERS:
        speaker = logging.getLogger(name)
        assert (speaker.level, speaker.propagate, speaker.handlers) == (before[name], True, [])


def test_what_is_said_stops_being_kept_after_an_error():
    with pytest.raises(ValueError, match="no"), noting():
        raise ValueError("no")
    assert all(logging.getLogger(name).propagate for name in SPEAKERS)
