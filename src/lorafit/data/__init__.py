"""Data in any form to train, validation and test splits, and the order of batches."""
