"""`python -m thresher.cli`."""

import sys

from thresher.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
