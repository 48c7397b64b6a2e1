"""`python -m gridloom`, also under `torchrun -m gridloom`."""

import sys

from gridloom.cli.main import main

sys.exit(main())
