"""Bridges to other libraries; nothing else may import them."""
