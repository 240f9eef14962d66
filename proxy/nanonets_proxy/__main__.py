"""`python -m nanonets_proxy`."""

import sys

from nanonets_proxy.cli import main

sys.exit(main())
