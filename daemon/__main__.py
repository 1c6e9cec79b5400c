"""`python -m daemon` is the `footlight` command."""

from daemon.cli import main

main()
