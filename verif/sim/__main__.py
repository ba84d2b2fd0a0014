"""`python -m convoy.verif.sim`."""

import sys

from .run import main

sys.exit(main())
