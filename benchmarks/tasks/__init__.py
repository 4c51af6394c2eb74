"""Every task on real data, through the one call that users make."""
