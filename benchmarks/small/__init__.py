"""How long to train on a few hundred rows: three epochs beside ``auto``."""
