"""`python -m nanonets_proxy`."""

import sys

from nanonets_proxy.main import main

sys.exit(main())
