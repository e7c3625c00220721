"""The server: a live model that is swapped under load, behind a thin BentoML service."""
