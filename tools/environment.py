"""The checkout's own virtual environment: made when missing, filled anew only when something changed.

    python3 tools/environment.py [EXTRA ...]     prints the path of its Python
    python3 tools/environment.py --peers         the same for .venv-peers, which has PJSIP for tests/interop

demo.py and test.py use it. Nothing is needed but Python and its venv module. This file is read by Pythons that are
too old for the library as well, and must then say so: hence no new syntax here.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 10)
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
STAMP = FOLDER / "p2psip.json"
INSIDE = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
PYTHON = FOLDER / INSIDE
SCRIPTS = PYTHON.parent
PEERS = ROOT / ".venv-peers"
PJSIP = "pjsua2-python==2.15.1.post1"
PJSIP_PYTHONS = ((3, 10), (3, 11), (3, 12))
"""For which there are wheels."""


def prepare(extras=(), editable=True):
    """Make sure that .venv has the checkout installed, and return its Python.

    Args:
        extras: The extras of setup.py that are needed.
        editable: Install a link to the checkout (``pip install -e .``). Otherwise a copy will do (``pip install .``),
            which is made anew when a file of the package changed.
    """
    check_python()
    wanted = sorted(extras)
    stamp = read_stamp()
    if stamp is None:
        make_environment(sys.executable, FOLDER)
        stamp = {"extras": [], "editable": False, "digest": ""}
    link = editable or stamp["editable"]
    wanted = sorted({*wanted, *stamp["extras"]})
    state = {"extras": wanted, "editable": link, "digest": digest(link)}
    if stamp != state:
        install(wanted, link)
        STAMP.write_text(json.dumps(state), encoding="utf-8")
    return PYTHON


def prepare_peers():
    """Make sure that .venv-peers has PJSIP, made with a Python for which there is a wheel, and return its Python."""
    python = PEERS / INSIDE
    if not runs([python, "-c", "import pjsua2"]):
        make_environment(find_python(PJSIP_PYTHONS), PEERS)
        say(f"Installing {PJSIP} into {PEERS.name}.")
        if not pip(python, "--only-binary", ":all:", "--no-deps", PJSIP) or not runs([python, "-c", "import pjsua2"]):
            raise SystemExit(
                f"pip could not install {PJSIP} (see above): is the package index within reach, and has it a wheel for "
                "this machine?"
            )
    return python


def find_python(versions):
    """This Python if it is one of these versions, else one that is on the path."""
    names = [sys.executable, *("python{}.{}".format(*version) for version in reversed(versions)), "/usr/bin/python3"]
    probe = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in {versions!r})"
    for name in names:
        if runs([name, "-c", probe]):
            return name
    wanted = ", ".join("{}.{}".format(*version) for version in versions)
    raise SystemExit("None of {} is a Python {} that can make virtual environments.".format(", ".join(names), wanted))


def runs(command):
    """Whether it exists and ends well."""
    try:
        return subprocess.run([str(word) for word in command], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def check_python():
    """End with a sentence where this Python will not do."""
    if sys.version_info[:2] < OLDEST:
        running = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(
            f"p2psip needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is Python {running}: run this with a newer one."
        )
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        raise SystemExit(
            f"This Python ({sys.executable}) cannot make virtual environments: on Debian and Ubuntu run "
            "`apt install python3-venv`, elsewhere install Python's venv and ensurepip."
        )


def read_stamp():
    """What was installed last; None when the environment is not there or its Python does not run."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if runs([PYTHON, "-c", f"import sys; sys.exit(sys.version_info[:2] < {OLDEST!r})"]) else None


def make_environment(python, folder):
    """An empty environment, in place of a broken one."""
    say(f"Making a virtual environment in {folder.name}.")
    command = [str(python), "-m", "venv", "--clear", str(folder)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if made.returncode:
        sys.stderr.write(made.stdout.decode("utf-8", "replace"))
        raise SystemExit(
            f"The virtual environment {folder} could not be made; on Debian and Ubuntu `apt install python3-venv` "
            "usually helps."
        )


def install(extras, link):
    """Install the checkout and what it needs."""
    target = ".[{}]".format(",".join(extras)) if extras else "."
    say("Installing p2psip into .venv (pip install {}{}).".format("-e " if link else "", target))
    shutil.rmtree(str(ROOT / "build"), ignore_errors=True)  # setuptools would put what it left there into the copy
    if not pip(PYTHON, "--use-pep517", "-e" if link else "--upgrade", target):
        raise SystemExit(
            "pip could not install p2psip or what it needs (see above): is the package index within reach?"
        )


def pip(python, *arguments):
    """Install with pip; whether that went well."""
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    return done.returncode == 0


def digest(link):
    """Changes when an installation is out of date: with what setup.py reads, and for a copy with every file."""
    files = [ROOT / "setup.py", ROOT / "p2psip" / "_version.py"]
    if not link:
        files += [path for path in sorted((ROOT / "p2psip").rglob("*")) if path.suffix in (".py", ".typed")]
    summary = hashlib.sha256()
    for path in files:
        summary.update(str(path.relative_to(ROOT)).encode("utf-8"))
        summary.update(path.read_bytes())
    return summary.hexdigest()


def say(text):
    """A line for the person who waits; standard output belongs to what is run."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def run(command):
    """Run it in place of this process where the system can, and return its exit code where it cannot."""
    if os.name == "posix":
        os.execv(command[0], command)
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    print(prepare_peers() if sys.argv[1:] == ["--peers"] else prepare(sys.argv[1:]))
