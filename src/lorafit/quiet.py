"""The one place that turns off what other packages show and say.

What of it matters, lorafit says itself, in one line. Read in transformers 5.23.0, datasets 5.2.0
and huggingface_hub 2.4.0; what is silenced there:

================  ==============================================================================
transformers      the bars "Loading weights" (``core_model_loading``) and "Writing model shards"
                  (``modeling_utils``); the table of missing and unexpected weights
                  (``utils.loading_report``) and all else below an error
transformers      the bar "Converting and de-quantizing GGUF tensors..."
                  (``modeling_gguf_pytorch_utils``), which does not ask whether bars are wanted
transformers      the thread that asks the Hub to convert pickled weights (``modeling_utils``),
                  which may fail, with a traceback, after everything else is done
datasets          the bars "Generating ... split", "Map", "Filter" and "Saving the dataset", and
                  messages below an error
huggingface_hub   the bars of downloads and "Fetching ... files", unless downloads are to be seen
================  ==============================================================================
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"


class Switch:
    """Something of the whole process that is turned off while any block of any thread wants it so.

    The first block turns it off, the last one puts back what the first found.

    Args:
        off: Turns it off, and returns what puts it back.
    """

    def __init__(self, off: Callable[[], Callable[[], None]]) -> None:
        self._off = off
        self._lock = threading.Lock()
        self._blocks = 0
        self._back: Callable[[], None] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Off inside."""
        with self._lock:
            if not self._blocks:
                self._back = self._off()
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks and self._back is not None:
                    self._back()
                    self._back = None


@contextmanager
def bars(*, downloads: bool = False) -> Iterator[None]:
    """Turns off the progress bars of transformers, datasets and the Hub's client.

    May be nested, and be in several threads; what was on before is on again afterwards.

    Args:
        downloads: Leave the Hub's bars as they are: they show downloads.
    """
    with ExitStack() as stack:
        # The Hub's outside: transformers' switch turns them on and off, too.
        if not downloads:
            stack.enter_context(_HUB_BARS.held())
        stack.enter_context(_BARS.held())
        yield


def _without_bars() -> Callable[[], None]:
    import datasets
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as transformers_logging

    own: Any = transformers_logging
    before = own.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    reader = vars(gguf)
    bar = reader["tqdm"]
    _show_bars(False, False)
    reader["tqdm"] = functools.partial(bar, disable=True)

    def back() -> None:
        reader["tqdm"] = bar
        _show_bars(*before)

    return back


def _show_bars(of_transformers: bool, of_datasets: bool) -> None:
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    own: Any = transformers_logging
    with warnings.catch_warnings():
        # Bars that the user's environment forces on or off stay so, without a warning.
        warnings.simplefilter("ignore")
        of_hub = not are_progress_bars_disabled()
        (own.enable_progress_bar if of_transformers else own.disable_progress_bar)()
        (datasets.enable_progress_bars if of_datasets else datasets.disable_progress_bars)()
        _show_hub_bars(of_hub)  # transformers' switch turned it, too


def _without_hub_bars() -> Callable[[], None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    before = not are_progress_bars_disabled()
    _show_hub_bars(False)
    return functools.partial(_show_hub_bars, before)


def _show_hub_bars(on: bool) -> None:
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (enable_progress_bars if on else disable_progress_bars)()


@contextmanager
def others(*, downloads: bool = False) -> Iterator[None]:
    """Turns off bars and messages of transformers, datasets and the Hub's client.

    Errors still come. May be nested, and be in several threads; everything is as before afterwards.

    Args:
        downloads: Leave the Hub's bars as they are: they show downloads.
    """
    with _MESSAGES.held(), bars(downloads=downloads):
        yield


def _without_messages() -> Callable[[], None]:
    import datasets
    from transformers.utils import logging as transformers_logging

    speakers = (transformers_logging, datasets.utils.logging)
    levels = [speaker.get_verbosity() for speaker in speakers]
    conversion = os.environ.get(_CONVERSION)
    for speaker in speakers:
        speaker.set_verbosity_error()
    os.environ[_CONVERSION] = "1"

    def back() -> None:
        for speaker, level in zip(speakers, levels, strict=True):
            speaker.set_verbosity(level)
        if conversion is None:
            os.environ.pop(_CONVERSION, None)
        else:
            os.environ[_CONVERSION] = conversion

    return back


_BARS, _HUB_BARS = Switch(_without_bars), Switch(_without_hub_bars)
_MESSAGES = Switch(_without_messages)


@contextmanager
def saying_less(name: str = "lorafit.model") -> Iterator[None]:
    """Keeps what a package of ours says, of which all is said elsewhere, to what goes wrong.

    By default what is said of a freshly loaded model (its new head, ...): true of a model to be
    trained, it would mislead where an adapter brings the head.

    Args:
        name: A package: its warnings and errors are shown. ``"lorafit"``: errors only.
    """
    with _quieter(name).held():
        yield


@functools.cache
def _quieter(name: str) -> Switch:
    return level_switch(name, logging.WARNING if "." in name else logging.ERROR)


def level_switch(name: str, level: int) -> Switch:
    """Holds a logger at a level."""
    speaker = logging.getLogger(name)

    def off() -> Callable[[], None]:
        before = speaker.level
        speaker.setLevel(level)
        return lambda: speaker.setLevel(before)

    return Switch(off)
