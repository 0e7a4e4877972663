// Helper of interop.py: `write FILE` writes a safetensors file and prints its checksum; `npy FILE` prints what NpyFile
// sees in it: dtype, ndim, rows, cols, last byte.
#include <cstdio>
#include <string>
#include <vector>

#include "worker/base/status.h"
#include "worker/data/npy.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

absl::StatusOr<std::string> WriteSample(const std::string& path) {
  SHARDMAX_ASSIGN_OR_RETURN(SafetensorsWriter writer,
                            SafetensorsWriter::Create(path, {{"weight", {3, 4}}, {"momentum", {3, 4}}}));
  for (int i = 0; i < 24; ++i) {
    const float value = 0.25f * static_cast<float>(i);
    SHARDMAX_RETURN_IF_ERROR(writer.Append(std::span(&value, 1)));
  }
  return writer.Finish();
}

absl::StatusOr<std::string> DescribeNpy(const std::string& path) {
  SHARDMAX_ASSIGN_OR_RETURN(const NpyFile file, NpyFile::Open(path));
  const std::byte last = file.row(file.rows())[-1];
  return fmt::format("{} {} {} {} {}", NpyTypeName(file.dtype()), file.ndim(), file.rows(), file.cols(),
                     std::to_integer<int>(last));
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() != 2) return 2;
  const absl::StatusOr<std::string> text =
      arguments[0] == "write" ? WriteSample(arguments[1]) : DescribeNpy(arguments[1]);
  std::printf("%s\n", text.ok() ? text->c_str() : Message(text.status()).c_str());
  return text.ok() ? 0 : 1;
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  return shardmax::Main({argv + 1, argv + argc});
}
