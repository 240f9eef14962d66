"""`python -m nanonets_proxy`."""

import sys

from nanonets_proxy.cli.main import main

sys.exit(main())
