"""Continual learning that is served."""
