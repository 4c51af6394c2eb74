"""Faults on purpose: processes killed, disks filled, signals sent, inputs damaged."""
