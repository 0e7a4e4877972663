#include "worker/checkpoint/manifest.h"

#include <google/protobuf/util/json_util.h>

#include <set>
#include <span>
#include <vector>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/data/file.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

using shardmax::v1::Manifest;
using shardmax::v1::ManifestFile;

constexpr int64_t kMaxManifestBytes = 16 << 20;
constexpr int32_t kMaxDim = 65536;
constexpr int32_t kMaxNeighbours = 1024;
constexpr size_t kMaxNameBytes = 255;

absl::Status CheckTensors(const Manifest& manifest) {
  std::vector<std::string> tensors(manifest.tensors().begin(), manifest.tensors().end());
  if (manifest.has_neighbours()) {
    if (manifest.neighbours() < 1 || manifest.neighbours() > kMaxNeighbours) {
      return InvalidArgument("neighbours is {}: allowed is 1 to {}", manifest.neighbours(), kMaxNeighbours);
    }
    if (tensors.empty() || tensors.back() != kNeighboursTensor) {
      return InvalidArgument("tensors is {}: with neighbours the last is {}", Quoted(absl::StrJoin(tensors, " ")),
                             kNeighboursTensor);
    }
    tensors.pop_back();
  }
  std::vector<std::vector<std::string>> allowed;
  if (manifest.optimizer() == "sgd") {
    allowed = {{"weight"}, {"weight", "momentum"}};
  } else if (manifest.optimizer() == "adamw") {
    allowed = {{"weight", "exp_avg", "exp_avg_sq"}};
  } else {
    return InvalidArgument("optimizer is {}: allowed are \"sgd\" and \"adamw\"", Quoted(manifest.optimizer()));
  }
  for (const auto& choice : allowed) {
    if (tensors == choice) return absl::OkStatus();
  }
  return InvalidArgument(
      "tensors is {}: {} has {}", Quoted(absl::StrJoin(tensors, " ")), manifest.optimizer(),
      manifest.optimizer() == "sgd" ? "weight, or weight and momentum" : "weight, exp_avg and exp_avg_sq");
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

absl::Status CheckFiles(const Manifest& manifest) {
  std::set<std::string> names;
  int32_t next = 0;
  for (int i = 0; i < manifest.files_size(); ++i) {
    const ManifestFile& file = manifest.files(i);
    if (!IsPlainName(file.path())) {
      return InvalidArgument("files[{}].path is {}: a plain file name is needed", i, Quoted(file.path()));
    }
    if (!names.insert(file.path()).second) {
      return InvalidArgument("files[{}].path is {} as before", i, Quoted(file.path()));
    }
    if (file.first_class() != next) {
      return InvalidArgument("files[{}].first_class is {}: {} must follow", i, file.first_class(), next);
    }
    if (file.num_classes() < 1 || file.num_classes() > manifest.num_classes() - next) {
      return InvalidArgument("files[{}].num_classes is {}: allowed is 1 to {}", i, file.num_classes(),
                             manifest.num_classes() - next);
    }
    if (!IsChecksum(file.checksum())) {
      return InvalidArgument("files[{}].checksum is {}: \"{}\" and 32 hexadecimal digits are needed", i,
                             Quoted(file.checksum()), kChecksumPrefix);
    }
    next += file.num_classes();
  }
  if (next != manifest.num_classes()) {
    return InvalidArgument("files end at class {}, num_classes is {}", next, manifest.num_classes());
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> FromJson(const std::string& json, bool ignore_unknown_fields) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = ignore_unknown_fields;
  Manifest manifest;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &manifest, options);
  if (!status.ok()) {
    const auto message = status.message();
    return InvalidArgument("is not a manifest: {}", Quoted({message.data(), message.size()}));
  }
  return manifest;
}

}  // namespace

std::string DtypeOf(const Manifest& manifest, const std::string& tensor) {
  if (tensor == kNeighboursTensor) return "I32";
  return tensor == "weight" || !manifest.has_state_dtype() ? "F32" : manifest.state_dtype();
}

int64_t WidthOf(const Manifest& manifest, const std::string& tensor) {
  return tensor == kNeighboursTensor ? manifest.neighbours() : manifest.dim();
}

absl::Status CheckManifestState(const Manifest& manifest) {
  if (manifest.format_version() > kManifestVersion) {
    return InvalidArgument("format_version is {}, this program knows {}: use a newer shardmax",
                           manifest.format_version(), kManifestVersion);
  }
  if (manifest.format_version() != kManifestVersion) {
    return InvalidArgument("format_version is {}: {} is needed", manifest.format_version(), kManifestVersion);
  }
  if (manifest.step() < 0) return InvalidArgument("step is {}: 0 or more is needed", manifest.step());
  if (manifest.num_classes() < 1) {
    return InvalidArgument("num_classes is {}: 1 or more is needed", manifest.num_classes());
  }
  if (manifest.dim() < 1 || manifest.dim() > kMaxDim) {
    return InvalidArgument("dim is {}: allowed is 1 to {}", manifest.dim(), kMaxDim);
  }
  if (manifest.has_state_dtype() && manifest.state_dtype() != "BF16" && manifest.state_dtype() != "F32") {
    return InvalidArgument("state_dtype is {}: allowed are \"F32\" and \"BF16\"", Quoted(manifest.state_dtype()));
  }
  return CheckTensors(manifest);
}

absl::Status CheckManifest(const Manifest& manifest) {
  SHARDMAX_RETURN_IF_ERROR(CheckManifestState(manifest));
  return CheckFiles(manifest);
}

absl::StatusOr<Manifest> ParseManifest(const std::string& json) {
  SHARDMAX_ASSIGN_OR_RETURN(Manifest manifest, FromJson(json, true));
  if (manifest.format_version() <= kManifestVersion) {
    SHARDMAX_ASSIGN_OR_RETURN(manifest, FromJson(json, false));
  }
  SHARDMAX_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

absl::StatusOr<Manifest> ReadManifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  SHARDMAX_ASSIGN_OR_RETURN(const File file, File::OpenForReading(path, Links::kRefuse));
  if (file.size() > kMaxManifestBytes) {
    return InvalidArgument("{}: is {} bytes long, at most {} are allowed", path, file.size(), kMaxManifestBytes);
  }
  std::string json(static_cast<size_t>(file.size()), '\0');
  SHARDMAX_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(json))));
  absl::StatusOr<Manifest> manifest = ParseManifest(json);
  if (!manifest.ok()) return Annotate(manifest.status(), path);
  return manifest;
}

absl::StatusOr<std::string> ManifestToJson(const Manifest& manifest) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(manifest, &json, options);
  if (!status.ok()) return Error(absl::StatusCode::kInternal, "manifest: {}", status.ToString());
  if (!json.ends_with('\n')) json += '\n';
  return json;
}

}  // namespace shardmax
