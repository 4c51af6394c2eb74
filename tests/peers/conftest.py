"""peft warns of what our tests do on purpose."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "/peers/" in str(item.path).replace("\\", "/"):
            for message in (
                "ignore::FutureWarning",
                "ignore:.*save_embedding_layers.*:UserWarning",
                "ignore:.*tie_word_embeddings.*:UserWarning",
                "ignore:.*disabling adapter layers with bias.*:UserWarning",
                "ignore:.*no longer tied after merging.*:UserWarning",
                "ignore:PiSSA changes the base.*:UserWarning",
                "ignore:Unsupported layer type.*LayerNorm.*:UserWarning",
                "ignore:Unsupported layer type.*RMSNorm.*:UserWarning",
                "ignore:Could not find a config file.*:UserWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(message))
