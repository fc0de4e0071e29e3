"""`python -m stockade` is the `stockade` command."""

from stockade.cli import main

main()
