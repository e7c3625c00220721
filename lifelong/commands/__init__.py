"""What the commands do; each module imports what it needs when it is needed."""
