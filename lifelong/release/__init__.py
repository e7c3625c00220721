"""Snapshots, cross-version compatibility, the gate, and the registry."""
