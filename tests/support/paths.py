"""Where the checkout is, and the text that lies beside it on some machines."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
GENESIS = ROOT.parent / "shared" / "texts" / "genesis.txt"
