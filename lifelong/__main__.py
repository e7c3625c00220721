"""`python -m lifelong`, for launchers that take a module, such as torchrun."""

from lifelong.cli import main

main()
