"""Registers and shared memory of every kernel, as ptxas reports them, against the table of docs/performance.md.

Usage: kernel_resources.py NVCC SOURCE_ROOT [--print]. Fails on a spill, and where the table is not what ptxas says;
--print writes the table to stdout instead.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

NVCC, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
ARCHITECTURES = ["sm_80", "sm_90", "sm_100"]
# The rules of UpdateKernel, by the value of its template argument.
RULES = {"0": "sgd", "1": "momentum", "2": "nesterov", "3": "adamw"}


def name_of(mangled):
    kernel = re.search(r"\d+([A-Z][A-Za-z0-9]*?Kernel)", mangled)[1]
    rule = re.search(r"RuleE(\d)", mangled)
    return f"{kernel}, {RULES[rule[1]]}" if rule else kernel


def resources():
    """{kernel: {architecture: (registers, shared bytes)}}"""
    found = {}
    for source in sorted((ROOT / "worker/engine/cuda").glob("*.cu")):
        with tempfile.NamedTemporaryFile(suffix=".o") as out:
            command = [NVCC, "-std=c++20", "--expt-relaxed-constexpr", "-O3", f"-I{ROOT}", "-Xptxas", "-v", "-c", source,
                       "-o", out.name]
            for architecture in ARCHITECTURES:
                command.append(f"-gencode=arch=compute_{architecture[3:]},code={architecture}")
            said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        blocks = re.findall(
            r"Compiling entry function '(\S+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
            r".*?Used (\d+) registers([^\n]*)", said, re.DOTALL)
        for mangled, architecture, stores, loads, registers, rest in blocks:
            assert stores == loads == "0", f"{name_of(mangled)} spills for {architecture}: {stores} and {loads} bytes"
            shared = re.search(r"(\d+) bytes smem", rest)
            found.setdefault(name_of(mangled), {})[architecture] = (int(registers), int(shared[1]) if shared else 0)
    return found


def table(found):
    lines = [f"| kernel | registers {', '.join(ARCHITECTURES)} | shared bytes | spills |", "|---|---|---|---|"]
    for kernel in sorted(found):
        used = [found[kernel][architecture] for architecture in ARCHITECTURES]
        assert len({shared for _, shared in used}) == 1, kernel
        registers = ", ".join(str(registers) for registers, _ in used)
        lines.append(f"| {kernel} | {registers} | {used[0][1]} | none |")
    return "\n".join(lines)


def main():
    made = table(resources())
    if "--print" in sys.argv:
        print(made)
        return
    if made not in (ROOT / "docs/performance.md").read_text():
        sys.exit(f"docs/performance.md does not have this table:\n{made}")


if __name__ == "__main__":
    main()
