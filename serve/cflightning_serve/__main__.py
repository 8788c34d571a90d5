"""Entry point of ``python -m cflightning_serve``."""

import sys

from cflightning_serve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
