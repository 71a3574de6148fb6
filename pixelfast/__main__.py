"""`python -m pixelfast` is the command `pixelfast`."""

from __future__ import annotations

import sys

from pixelfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
