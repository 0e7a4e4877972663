#include <cerrno>
#include <cstdio>
#include <memory>

#include "shardmax/client.h"
#include "worker/base/status.h"
#include "worker/spec/job_spec.h"

namespace shardmax {
namespace {

// One byte more than a spec may have, so that the parser sees that it is too long.
constexpr size_t kMaxBytes = (1 << 20) + 1;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

absl::StatusOr<std::string> ReadText(const std::string& path) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return ErrnoError(errno, path);
  std::string text(kMaxBytes, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return ErrnoError(errno, path);
  return text;
}

}  // namespace

absl::StatusOr<v1::JobSpec> LoadJobSpec(const std::string& path) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  SHARDMAX_ASSIGN_OR_RETURN(v1::JobSpec spec, ParseJobSpec(text, SpecFormatOf(path), path));
  std::string mistakes;
  for (const std::string& mistake : Mistakes(spec)) mistakes += "\n" + mistake;
  if (!mistakes.empty()) return InvalidArgument("{}: not a valid job:{}", path, mistakes);
  return spec;
}

}  // namespace shardmax
