"""`python -m smolvlm`: the same command line as the installed `smolvlm`."""

from __future__ import annotations

import sys

from smolvlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
