"""Breaks the CUDA engine on purpose, one mistake at a time, and checks that its tests on the stand-in notice.

Usage: mutation_test.py SOURCE_ROOT BUILD_FOLDER all|races. Each mistake is patched into a copy of the real source, which
is compiled and linked into cuda_engine_test as the build does it; the tests named with it must then fail, with its
message. "races": those that ThreadSanitizer alone can see, in a build with it.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD, WHICH = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
ENGINE = "worker/engine/cuda"
STEP = "Losses/CudaMatrix.*/SvArcSoftmax"
LATE = "Losses/CudaMatrix.AgreesOverSteps*/SvArcSoftmax"
NEAREST = "CudaEngineContract.NearestClasses*"
OPTIMIZERS = "CudaEngineContract.EveryOptimizer*"
SHAPES = "DeviceSteps.AgreeWithTheReferenceWhenShapes*"
WRONG = "SpoiledDeviceSteps.NameTheRankAndRow*"
HARD = "Losses/CudaMatrix.AgreesWith*/HmSoftmax"
TIES = "DeviceSteps.KeepTheLowerRowOfATie"
LIMIT_S = 240


class Mistake:
    def __init__(self, file, before, after, tests, message="FAILED|still running", compiled=None):
        self.file = f"{ENGINE}/{file}"
        self.before, self.after, self.tests, self.message = before, after, tests, message
        self.compiled = f"{ENGINE}/{compiled or file}"  # A header is patched with one of the sources that include it.


MISTAKES = {
    "missing barrier of a reduction": Mistake(
        "warp.cuh", "  __syncthreads();\n", "", STEP, compiled="score_kernels.cu"),
    "missing barrier of the nearest class": Mistake(
        "score_kernels.cu", "  __syncthreads();\n  if (threadIdx.x == 0) {\n    for", "  if (threadIdx.x == 0) {\n    for",
        NEAREST),
    "reduction of half a warp": Mistake(
        "warp.cuh", "lanes = kWarpSize / 2", "lanes = kWarpSize / 4", STEP, compiled="score_kernels.cu"),
    "shuffle that some lanes have left": Mistake(
        "update_kernels.cu", "  const int64_t row = k * args.stride;\n",
        "  const int64_t row = k * args.stride;\n  if (lane * 4 >= args.stride) return;\n", STEP,
        "__shfl_xor_sync: not every lane of its mask takes part in "),
    "last class of a tile left out": Mistake(
        "tile_work.cc", "options_.shard.count - first)", "options_.shard.count - first - 1)", STEP),
    "tiles one class apart": Mistake(
        "tile_work.cc", "first += tile_classes", "first += tile_classes + 1", STEP,
        "FAILED|still running|misaligned address"),
    "unguarded tail of a tile": Mistake(
        "score_kernels.cu", "column + j < tile.count && column + j != label_column", "column + j != label_column", STEP),
    "unguarded tail of the classes": Mistake(
        "update_kernels.cu", "k >= args.count || ", "", STEP,
        "touched byte .* of an allocation|past the end of an allocation|FAILED"),
    "label among the other classes": Mistake(
        "score_kernels.cu", " && column + j != label_column", "", STEP),
    "vector loads one element off": Mistake(
        "vector_access.cuh", "return *reinterpret_cast<const float4*>(from);",
        "return *reinterpret_cast<const float4*>(from + 1);", STEP, "misaligned address", compiled="score_kernels.cu"),
    "no wait for the rows of all ranks": Mistake(
        "cuda_phases.cc", "Follow(wire_.get(), gathered_, compute())", "absl::OkStatus()", LATE),
    "the next rows overtake those of this step": Mistake(
        "cuda_phases.cc", "return Follow(compute(), labels_done_, wire_.get());", "return absl::OkStatus();", LATE),
    "no wait for the label cosines": Mistake(
        "cuda_phases.cc", "Follow(wire_.get(), cosines_summed_, compute())", "absl::OkStatus()", LATE),
    "no wait for the partial normalisers": Mistake(
        "cuda_phases.cc", "Follow(compute(), scored_, wire_.get())", "absl::OkStatus()", LATE),
    "no wait for those of the others": Mistake(
        "cuda_phases.cc", "Follow(wire_.get(), partials_gathered_, compute())", "absl::OkStatus()", LATE),
    "no wait for the feature gradients": Mistake(
        "cuda_phases.cc",
        "  SHARDMAX_CUDA(cudaStreamWaitEvent, wire_.get(), feature_gradients_done_.get(), 0);\n", "", LATE),
    "graph of another shape": Mistake(
        "cuda_phases.cc", ".phase = phase, .rows = rows()", ".phase = phase", LATE),
    "graph of buffers that have moved": Mistake(
        "graph_cache.cc", "  if (generation != generation_) graphs_.clear();\n", "", SHAPES,
        "FAILED|that was freed|the memory was freed"),
    "graph with the learning rate of its capture": Mistake(
        "cuda_phases.cc", "*batch_.host_step.data() = {.loss = loss, .scale = ScaleOf(loss), .rule = rule};",
        "if (step_ < 3) *batch_.host_step.data() = {.loss = loss, .scale = ScaleOf(loss), .rule = rule};", SHAPES),
    "update of a step that must not go on": Mistake(
        "update_kernels.cu", " || args.step->go == 0", "", WRONG),
    "rows of the wrong rank": Mistake(
        "step_kernels.cu", "parts.first_rows[middle] <= row", "parts.first_rows[middle] < row", STEP),
    "missing barrier of hard mining": Mistake(
        "step_kernels.cu", "    __syncthreads();\n    for (int i = 0", "    for (int i = 0", HARD),
    "ties of hard mining to the higher row": Mistake(
        "step_kernels.cu", "first + i < row", "first + i > row", TIES),
    "losses of dropped rows": Mistake(
        "step_kernels.cu", "    if (args.kept[row] == 0) continue;\n", "", HARD),
}
RACES = {
    "missing barrier of a reduction": Mistake(
        "warp.cuh", "  __syncthreads();\n", "", "CudaEngineContract.AShardOfTheLabel*", "data race",
        compiled="score_kernels.cu"),
    "inverse norm replaced while other lanes read it": Mistake(
        "update_kernels.cu", "  __syncwarp();", "  ", OPTIMIZERS, "data race.*UpdateKernel"),
}


def commands():
    """Compile command by source for the engine on the stand-in, and the command that links its test."""
    compile_commands = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        if "cuda_engine_on_host.dir" in entry["command"]:
            compile_commands[str(pathlib.Path(entry["file"]).resolve().relative_to(SOURCE.resolve()))] = entry["command"]
    link = subprocess.run(["ninja", "-t", "commands", "-s", "tests/cuda_engine_test"], cwd=BUILD, check=True,
                          capture_output=True, text=True).stdout
    return compile_commands, re.fullmatch(r"\s*: && (.*) && :\s*", link)[1]


class Mutants(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.compile_commands, cls.link_command = commands()

    def build(self, mistake, folder):
        patched = folder / mistake.file
        patched.parent.mkdir(parents=True)
        text = (SOURCE / mistake.file).read_text()
        self.assertEqual(text.count(mistake.before), 1, f"{mistake.file} has this once: {mistake.before!r}")
        patched.write_text(text.replace(mistake.before, mistake.after))
        source = folder / mistake.compiled
        if not source.exists():
            source.write_text((SOURCE / mistake.compiled).read_text())
        command = shlex.split(self.compile_commands[mistake.compiled])
        command = command[command.index(next(part for part in command if part.endswith("c++"))):]  # Past ccache.
        command[command.index("-o") + 1] = str(folder / "mutant.o")
        command[command.index("-c") + 1] = str(source)
        # Before the real root, so that a patched header is the one that is found; not an error of style, either.
        command[1:1] = [f"-I{folder}", "-w"]
        if "-MF" in command:
            command[command.index("-MF") + 1] = str(folder / "mutant.d")
        subprocess.run(command, cwd=BUILD, check=True)
        # Objects come before the archive, whose member of the same symbols is then left out.
        link = shlex.split(self.link_command)
        link[link.index("-o") + 1] = str(folder / "mutant")
        link.insert(link.index("-o"), str(folder / "mutant.o"))
        subprocess.run(link, cwd=BUILD, check=True)
        return folder / "mutant"

    def check(self, mistake):
        with tempfile.TemporaryDirectory() as folder:
            program = self.build(mistake, pathlib.Path(folder))
            run = subprocess.run([program, f"--gtest_filter={mistake.tests}"], capture_output=True, text=True,
                                 errors="replace", timeout=LIMIT_S)
            printed = run.stdout + run.stderr
            self.assertNotRegex(printed, r"Running 0 tests")
            self.assertNotEqual(run.returncode, 0, "no test noticed it")
            self.assertRegex(printed, re.compile(mistake.message, re.DOTALL))


def add_tests():
    for name, mistake in (MISTAKES if WHICH == "all" else RACES).items():
        def test(self, mistake=mistake):
            self.check(mistake)
        setattr(Mutants, "test_" + name.replace(" ", "_"), test)


if __name__ == "__main__":
    add_tests()
    unittest.main(argv=sys.argv[:1], verbosity=2)
