"""Training on an endless stream: exactly once, for months, killed and resumed at any moment."""
