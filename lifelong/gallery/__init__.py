"""Embeddings that are never recomputed."""
