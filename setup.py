"""All metadata of the distribution. The version stands in p2psip/_version.py."""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
version = re.search(r'__version__ = "([^"]+)"', (HERE / "p2psip" / "_version.py").read_text(encoding="utf-8")).group(1)

TESTING = ["pytest>=7.4", "trustme>=1.1"]  # what p2psip.testing imports


class SourceDistribution(sdist):
    """Without tests: by itself setuptools takes some of them along, which do not run without the others."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if pathlib.Path(name).parts[0] != "tests"])


setup(
    name="p2psip-endpoint",
    version=version,
    description="SIP peer-to-peer endpoints over mutual TLS: UCMA's signaling model for Python",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    python_requires=">=3.10",
    cmdclass={"sdist": SourceDistribution},
    packages=find_packages(include=["p2psip", "p2psip.*"]),
    package_data={"p2psip": ["py.typed"]},
    install_requires=["cryptography>=42", "dnspython>=2.4"],
    extras_require={
        "testing": TESTING,
        "test": [*TESTING, "hypothesis>=6.80"],
        "lint": ["mypy>=1.8", "ruff>=0.6", "docutils>=0.20"],
    },
    entry_points={
        "console_scripts": ["p2psip = p2psip.__main__:main"],
        "pytest11": ["p2psip = p2psip._pytest"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Communications :: Internet Phone",
        "Typing :: Typed",
    ],
)
