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
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"


@contextmanager
def bars(*, downloads: bool = False) -> Iterator[None]:
    """Turns off the progress bars of transformers, datasets and the Hub's client.

    May be nested; what was on before is on again afterwards.

    Args:
        downloads: Leave the Hub's bars as they are: they show downloads.
    """
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as transformers_logging

    before = (
        transformers_logging.is_progress_bar_enabled(),
        not datasets.are_progress_bars_disabled(),
        not are_progress_bars_disabled(),
    )
    reader = vars(gguf)
    bar = reader["tqdm"]
    _show_bars(False, False, before[2] and downloads)
    reader["tqdm"] = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        reader["tqdm"] = bar
        _show_bars(*before)


def _show_bars(of_transformers: bool, of_datasets: bool, of_hub: bool) -> None:
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    own: Any = transformers_logging
    with warnings.catch_warnings():
        # Bars that the user's environment forces on or off stay so, without a warning.
        warnings.simplefilter("ignore")
        # Switches the Hub's too, so it comes before them.
        (own.enable_progress_bar if of_transformers else own.disable_progress_bar)()
        (datasets.enable_progress_bars if of_datasets else datasets.disable_progress_bars)()
        (enable_progress_bars if of_hub else disable_progress_bars)()


@contextmanager
def others(*, downloads: bool = False) -> Iterator[None]:
    """Turns off bars and messages of transformers, datasets and the Hub's client.

    Errors still come. May be nested; everything is as before afterwards.

    Args:
        downloads: Leave the Hub's bars as they are: they show downloads.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    speakers = (transformers_logging, datasets.utils.logging)
    levels = [speaker.get_verbosity() for speaker in speakers]
    conversion = os.environ.get(_CONVERSION)
    for speaker in speakers:
        speaker.set_verbosity_error()
    os.environ[_CONVERSION] = "1"
    try:
        with bars(downloads=downloads):
            yield
    finally:
        for speaker, level in zip(speakers, levels, strict=True):
            speaker.set_verbosity(level)
        if conversion is None:
            del os.environ[_CONVERSION]
        else:
            os.environ[_CONVERSION] = conversion


@contextmanager
def saying_less(name: str = "lorafit.model") -> Iterator[None]:
    """Keeps what a package of ours says, of which all is said elsewhere, to what goes wrong.

    By default what is said of a freshly loaded model (its new head, ...): true of a model to be
    trained, it would mislead where an adapter brings the head.

    Args:
        name: A package: its warnings and errors are shown. ``"lorafit"``: errors only.
    """
    speaker = logging.getLogger(name)
    level = speaker.level
    speaker.setLevel(logging.WARNING if "." in name else logging.ERROR)
    try:
        yield
    finally:
        speaker.setLevel(level)
