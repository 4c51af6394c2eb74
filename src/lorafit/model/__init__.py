"""Models: loading them, and finding the layers that can be adapted."""
