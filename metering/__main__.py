"""`python -m metering` is `jauge`."""

from metering.cli import main

main()
