"""Run the whole test suite:  python3 tools/test.py [ARGUMENTS OF PYTEST]

Makes a virtual environment in .venv, installs the checkout with the extra ``test`` into it and runs pytest: twice, side
by side, each time with about half of the tests, unless an argument says which tests (``tests`` are all of them, one
after the other). What the first half says is printed when the second one has ended.

Needs nothing but Python 3.10 or newer with venv.
"""

import os
import subprocess
import sys
import tempfile

import environment

FIRST = ["tests/cli", "tests/core", "tests/message", "tests/sync"]
"""Folders that take about as long as all the rest."""


def side_by_side(python, arguments):
    """Both halves at once; the exit code of the first of them that fails."""
    command = [str(python), "-m", "pytest", *arguments]
    with tempfile.TemporaryFile() as said:
        first = subprocess.Popen([*command, *FIRST], stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.call([*command, *("--ignore=" + folder for folder in FIRST)])]
        finally:
            codes.append(first.wait())
        said.seek(0)
        print("\nThe other half, {}:".format(", ".join(FIRST)), flush=True)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    if any(codes):
        print("A test failed: see above, where each half has its summary.")
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    made = environment.prepare(["test"])
    os.chdir(str(environment.ROOT))
    if all(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit(side_by_side(made, sys.argv[1:]))
    sys.exit(environment.run([str(made), "-m", "pytest", *sys.argv[1:]]))
