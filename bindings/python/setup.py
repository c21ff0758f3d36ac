"""Builds the C library with CMake and puts it, with the demo models, inside the wheel."""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

HERE = Path(__file__).resolve().parent


def project_folder():
    """The source tree: two folders up, or what ONESTEP_SOURCE names (pip may build in a copy)."""
    for folder in (os.environ.get("ONESTEP_SOURCE"), HERE.parent.parent):
        if folder and (Path(folder) / "include" / "onestep.h").exists():
            return Path(folder)
    raise SystemExit("onestep: the C sources were not found; set ONESTEP_SOURCE to the source tree")


class BuildWithLibrary(build_py):
    """build_py, then the shared library beside the modules."""

    def run(self):
        super().run()
        target = Path(self.build_lib).resolve() / "onestep"
        source = project_folder()
        build = Path(os.environ.get("ONESTEP_BUILD") or Path(self.build_lib).resolve().parent / "c-library")
        if not (build / "libonestep.so").exists():
            subprocess.run(
                ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"],
                check=True,
            )
        subprocess.run(
            ["cmake", "--build", str(build), "--target", "onestep_shared", "-j", str(os.cpu_count() or 1)], check=True
        )
        shutil.copyfile(build / "libonestep.so", target / "libonestep.so")
        demo = source / "models" / "demo"
        if demo.is_dir():
            shutil.copytree(demo, target / "demo", dirs_exist_ok=True)


class BinaryDistribution(Distribution):
    """The wheel holds machine code, so it is for this platform only."""

    def has_ext_modules(self):
        return True


try:
    from wheel.bdist_wheel import bdist_wheel
except ImportError:
    from setuptools.command.bdist_wheel import bdist_wheel


class AnyPython(bdist_wheel):
    """ctypes needs no Python ABI: one wheel serves every Python 3."""

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": AnyPython}, distclass=BinaryDistribution)
