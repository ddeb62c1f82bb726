"""``python -m telegrad.cli``."""

import sys

from telegrad.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
