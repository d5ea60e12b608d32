"""``python -m detlit``, the same as the ``detlit`` command."""

import sys

from detlit.cli import main

if __name__ == "__main__":
    sys.exit(main())
