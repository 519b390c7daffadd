"""Fuzz a parser or the engine, guided by coverage:  python3 tools/fuzz/run.py TARGET [--seconds 600]

Makes a virtual environment with atheris in .venv-fuzz, unless this Python has it. Begins with the corpus of the tests
and a dictionary of SIP's words; what the campaign adds to them is kept in .fuzz, and the next one begins there. Prints
executions, coverage and findings; each finding is two files, the octets and the traceback. Ends with 1 when there is
one. ``--replay FILE`` runs a target once over these octets, without atheris.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import environment

HERE = Path(__file__).resolve().parent

ATHERIS = "atheris>=2.3"
FOLDER = environment.ROOT / ".venv-fuzz"
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 10))
"""For which there may be wheels of atheris."""

SECONDS_PER_INPUT = 30
MEGABYTES = 2048
"""What libFuzzer itself takes for a hang or a leak."""

PROGRESS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


class Campaign(NamedTuple):
    """What came of one target."""

    target: str
    executions: int
    branches: int
    features: int
    inputs: int
    findings: list[Path]
    exit_code: int

    def __str__(self) -> str:
        found = f"{len(self.findings)} findings" if self.findings else "no finding"
        return (
            f"{self.target}: {self.executions} executions, {self.branches} branches and {self.features} features "
            f"covered, {self.inputs} inputs in the corpus, {found}, exit code {self.exit_code} of the fuzzer"
        )


def python_with_atheris() -> str:
    """This Python where it has atheris and what p2psip needs, else that of .venv-fuzz, which is made when missing."""
    if all(map(find_spec, ("atheris", "cryptography", "dns"))):
        return sys.executable
    python = FOLDER / environment.INSIDE
    probe = [python, "-c", "import atheris, cryptography, dns"]
    if not environment.runs(probe):
        environment.make_environment(environment.find_python(PYTHONS), FOLDER)
        environment.say(f"Installing {ATHERIS} and p2psip into {FOLDER.name}.")
        if not environment.pip(python, ATHERIS, "-e", ".") or not environment.runs(probe):
            raise SystemExit(f"pip could not install {ATHERIS} (see above): has it a wheel for this machine?")
    return str(python)


def fuzz(python: str, name: str, seconds: int, work: Path) -> Campaign:
    """One campaign of that target."""
    from fuzz_targets import DICTIONARY, TARGETS

    target = TARGETS[name]
    corpus, seeds, findings = (work / name / part for part in ("corpus", "seeds", "findings"))
    for folder in (corpus, seeds, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for octets in target.seeds():
        (seeds / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)
    words = work / "dictionary"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in DICTIONARY), encoding="ascii")
    before = set(findings.glob("*.bin"))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-dict={words}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-artifact_prefix={findings}{os.sep}{name}-",
        "-print_final_stats=1",
        "-use_value_profile=1",
        str(corpus),
        str(seeds),
    ]
    command = [python, str(HERE / "fuzz_driver.py"), "fuzz", name, str(findings), *options]
    executions = branches = features = inputs = 0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            seen = PROGRESS.match(line)
            if seen is not None:
                executions, branches, features, inputs = (int(seen[index]) for index in (1, 3, 4, 5))
            elif not line.startswith(("INFO:", "stat::", "NEW_FUNC")):
                sys.stderr.write(line)
    artifacts = [path for path in findings.iterdir() if path.suffix not in (".bin", ".txt")]
    found = sorted({*set(findings.glob("*.bin")) - before, *artifacts})
    return Campaign(name, executions, branches, features, inputs, found, run.returncode)


def escaped(word: bytes) -> str:
    """As a dictionary of libFuzzer has it."""
    return "".join(chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\x{octet:02x}" for octet in word)


def replay(name: str, files: list[Path]) -> int:
    """Run the target over these files here and now; how many of them it fails on."""
    from fuzz_targets import TARGETS

    failures = 0
    for file in files:
        try:
            TARGETS[name].run(file.read_bytes())
            print(f"{file}: nothing wrong")
        except Exception:
            failures += 1
            print(f"{file}:")
            traceback.print_exc(file=sys.stdout)
    return failures


def main() -> int:
    environment.check_python()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("target", nargs="?", help="one of them, or 'all'; without any they are listed")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--work", type=Path, default=environment.ROOT / ".fuzz", help="where inputs and findings go")
    parser.add_argument(
        "--lines", type=float, default=60.0, help="seconds to find out which lines were reached; 0: not"
    )
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="run the target over these, once")
    options = parser.parse_args()
    python = sys.executable if options.replay else python_with_atheris()
    if not environment.runs([sys.executable, "-c", "import cryptography, dns"]) and python != sys.executable:
        return environment.run([python, str(HERE / "run.py"), *sys.argv[1:]])
    from fuzz_targets import TARGETS

    names = list(TARGETS) if options.target == "all" else [options.target] if options.target in TARGETS else []
    if not names:
        print("Targets: " + ", ".join(TARGETS))
        return 2
    if options.replay:
        return int(replay(names[0], options.replay) > 0)
    worst = 0
    for name in names:
        campaign = fuzz(python, name, options.seconds, options.work.resolve())
        print(campaign, flush=True)
        for path in campaign.findings:
            print(f"  {path}", flush=True)
        worst |= campaign.exit_code != 0 or bool(campaign.findings)
        if options.lines:
            folders = [str(options.work.resolve() / name / part) for part in ("corpus", "seeds")]
            command = [python, str(HERE / "fuzz_driver.py"), "lines", name, str(options.lines), *folders]
            subprocess.run(command, check=False)
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
