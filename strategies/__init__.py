"""The training methods: one file each, training behaviour only."""
