"""Metrics by definition, and honest comparison."""
