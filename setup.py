"""Build of the extension `pixelfast._C`; everything else is declared in pyproject.toml.

The extension is torch-free: pybind11 and a C++17 compiler are all it needs. Kernels choose their instruction
set with pragmas inside each file, so all sources share one set of flags: per-file `-m` flags would put vector
instructions into weak functions of the standard library that the linker may keep for every instruction set.

PIXELFAST_SANITIZE=address,undefined or PIXELFAST_SANITIZE=thread builds with those sanitizers (see `make sanitize`).
"""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

CSRC = Path("csrc")
SOURCES = sorted(str(path) for path in CSRC.glob("**/*.cpp"))
HEADERS = sorted(str(path) for pattern in ("**/*.h", "**/*.hpp", "**/*.inc") for path in CSRC.glob(pattern))
SANITIZE = os.environ.get("PIXELFAST_SANITIZE", "")


def outdated(object_file: str, source: str) -> bool:
    """Whether an object is older than its source, a header or the flags written here."""
    if not os.path.exists(object_file):
        return True
    built = os.path.getmtime(object_file)
    return any(os.path.getmtime(path) > built for path in (source, *HEADERS, "setup.py"))


def extensions() -> list[Pybind11Extension]:
    """The one extension, or none in a checkout without C++ sources."""
    if not SOURCES:
        return []
    # A fused multiply-add where the source has none would make results depend on the compiler's mood.
    flags = ["-fopenmp", "-ffp-contract=off", "-fvisibility=hidden"]
    link = ["-fopenmp"]
    if SANITIZE:
        checks = [
            f"-fsanitize={SANITIZE}",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
        ]
        flags += ["-O1", "-g", *checks]
        link += checks
    else:
        flags += ["-O3", "-g0"]
    return [
        Pybind11Extension(
            "pixelfast._C",
            SOURCES,
            include_dirs=[str(CSRC)],
            depends=[*HEADERS, "setup.py"],
            cxx_std=17,
            extra_compile_args=flags,
            extra_link_args=link,
        )
    ]


ParallelCompile("PIXELFAST_BUILD_JOBS", needs_recompile=outdated).install()

setup(
    packages=[*find_packages(include=["pixelfast", "pixelfast.*"]), "pixelfast.weights", "pixelfast.kernels"],
    package_dir={"pixelfast": "pixelfast", "pixelfast.kernels": "kernels"},
    package_data={"pixelfast": ["py.typed", "*.pyi"], "pixelfast.weights": ["*"]},
    ext_modules=extensions(),
    cmdclass={"build_ext": build_ext},
)
