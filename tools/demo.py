"""Watch two SIP peers find each other over mutual TLS:  python3 tools/demo.py [--port PORT] [--json] ...

Makes a virtual environment in .venv, installs the checkout into it and runs ``p2psip demo``.
Needs nothing but Python 3.10 or newer with venv.
"""

import sys

import environment

if __name__ == "__main__":
    environment.prepare(editable=False)
    sys.exit(environment.run([str(environment.SCRIPTS / "p2psip"), "demo", *sys.argv[1:]]))
