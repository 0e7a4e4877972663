// Where data files may lie, and how a path of a spec finds its file.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shardmax {

// The folders (--data_root) that files of a job must lie in. Immutable; any thread reads.
class DataRoots {
 public:
  // `roots` may be empty: then every file is allowed. `base_folder`, the folder of the job file, is only used then.
  // Each must be a folder that exists, else InvalidArgument or the system's error.
  static absl::StatusOr<DataRoots> Make(const std::vector<std::string>& roots, const std::string& base_folder);

  // The absolute path, symbolic links resolved, of the file or folder that `path` means. A relative path is looked for
  // in each root in turn; without roots in the base folder, then in the current folder.
  //
  // InvalidArgument naming `field`, the path and the roots: empty, or outside every root (through "..", a link, or an
  // absolute path; whether such a file exists is not told). NotFound: inside, but nothing is there. A link that is
  // changed after this call is the opener's risk: open the returned path, which holds no link.
  absl::StatusOr<std::string> Resolve(const std::string& field, const std::string& path) const;

 private:
  DataRoots(std::vector<std::string> roots, std::string base_folder);
  bool Allowed(const std::string& canonical) const;

  std::vector<std::string> roots_;  // Canonical.
  std::string base_folder_;         // Canonical.
};

}  // namespace shardmax
