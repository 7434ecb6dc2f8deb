"""``python -m kaito``."""

from __future__ import annotations

from kaito.cli import main

if __name__ == "__main__":
    main()
