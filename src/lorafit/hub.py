"""The Hugging Face Hub when it cannot be reached: said once and soon.

The clients try each request six times, with 23 seconds of waiting between, and say so twelve
times, before they look at what they have fetched before (read in huggingface_hub 2.4.0, whose
number of tries is an argument that transformers and datasets do not pass on). So it is asked once
whether the Hub answers; where it does not, they are told that they are offline.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

SECONDS = 5.0
"""How long an answer may take."""


@contextmanager
def asked(wanted: bool = True) -> Iterator[None]:
    """Lets the Hub's clients work offline, with what they have, where the Hub does not answer.

    May be nested; whether they are offline is as before afterwards.

    Args:
        wanted: Whether anything in here asks the Hub.
    """
    if not wanted or _offline() or answers():
        yield
        return
    import datasets
    from huggingface_hub import constants

    switches: list[Any] = [constants, datasets.config]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = was


@functools.cache
def answers() -> bool:
    """Whether the Hub answers a request by its own client; asked once in a process.

    Any answer counts, also a refusal. None is a warning.
    """
    from huggingface_hub import close_session, constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # noqa: BLE001 of the client that is configured, whichever it is
        close_session()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        log.warning(
            "%s does not answer (%s): only what was fetched before can be used. "
            "Set HF_HUB_OFFLINE=1 where that is always so.",
            constants.ENDPOINT,
            reason,
        )
        return False
    return True


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())
