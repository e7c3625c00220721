"""Endless streams: where labelled samples come from, read by position and never lost in between."""
