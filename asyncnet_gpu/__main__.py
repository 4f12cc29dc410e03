"""``python -m asyncnet_gpu``."""

from __future__ import annotations

import sys

from asyncnet_gpu.cli import main

sys.exit(main())
