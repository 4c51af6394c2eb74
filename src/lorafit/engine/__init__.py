"""Engines: how one batch is computed and differentiated."""
