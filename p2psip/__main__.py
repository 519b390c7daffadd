"""``python -m p2psip``, which is what the command ``p2psip`` runs as well."""

from __future__ import annotations

import sys

from p2psip.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
