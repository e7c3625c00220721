"""Finite scenarios: what arrives when, and what is tested."""
