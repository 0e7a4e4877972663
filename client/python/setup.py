"""Generates shardmax.v1 from the .proto files when the package is built."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
BUNDLED = HERE / "proto"  # In a source distribution.
PROTO = BUNDLED if BUNDLED.is_dir() else HERE.parents[1] / "proto"


def generate(folder):
    """Writes the modules of every .proto file below `folder`."""
    files = sorted(str(file.relative_to(PROTO)) for file in PROTO.glob("shardmax/v1/*.proto"))
    if not files:
        sys.exit(f"no .proto files in {PROTO}: build from a clone of the repository, or from a source distribution")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, *files], check=True)


class BuildPy(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            generate(HERE / "src")
        else:
            pathlib.Path(self.build_lib).mkdir(parents=True, exist_ok=True)
            generate(self.build_lib)


class Sdist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        target = pathlib.Path(base_dir) / "proto/shardmax/v1"
        target.mkdir(parents=True, exist_ok=True)
        for file in PROTO.glob("shardmax/v1/*.proto"):
            (target / file.name).write_bytes(file.read_bytes())


def runtime_requirements():
    """grpcio and protobuf that can run the stubs: from 1.63 on those that grpcio-tools itself asks for, at least."""
    oldest = {"grpcio": "1.51.1", "protobuf": "4.21.6"}
    tools = importlib.metadata.version("grpcio-tools")
    if tuple(int(part) for part in tools.split(".")[:2]) >= (1, 63):
        for requirement in importlib.metadata.requires("grpcio-tools") or []:
            name = re.match(r"[A-Za-z0-9-]+", requirement).group()
            version = re.search(r">=\s*([0-9.]+)", requirement)
            if name in oldest and version:
                oldest[name] = version.group(1)
    return [f"{name}>={version}" for name, version in oldest.items()]


setup(
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
    install_requires=[*runtime_requirements(), "numpy>=1.22", "tqdm>=4.60"],
)
