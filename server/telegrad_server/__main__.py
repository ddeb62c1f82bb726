"""``python -m telegrad_server``."""

import sys

from telegrad_server.commands import main

sys.exit(main())
