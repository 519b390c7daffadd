"""Run the whole test suite:  python3 tools/test.py [ARGUMENTS OF PYTEST]

Makes a virtual environment in .venv, installs the checkout with the extra ``test`` into it and runs pytest.
Needs nothing but Python 3.10 or newer with venv.
"""

import os
import sys

import environment

if __name__ == "__main__":
    python = environment.prepare(["test"])
    os.chdir(str(environment.ROOT))
    sys.exit(environment.run([str(python), "-m", "pytest", *sys.argv[1:]]))
