#include "server/submit_check.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"
#include "worker/spec/job_spec.h"

namespace shardmax {
namespace {

constexpr size_t kMaxKeyBytes = 128;

void ResolvePath(const DataRoots& roots, const std::string& field, std::string* path,
                 std::vector<std::string>& mistakes) {
  // What is empty is among the mistakes of the spec already.
  if (path->empty()) return;
  auto resolved = roots.Resolve(field, *path);
  if (resolved.ok()) {
    *path = *std::move(resolved);
  } else {
    mistakes.push_back(Message(resolved.status()));
  }
}

std::string DigestOf(const v1::JobSpec& spec) {
  const std::string bytes = spec.SerializeAsString();
  std::array<unsigned char, SHA256_DIGEST_LENGTH> hash = {};
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash.data());
  std::string hex;
  for (const unsigned char byte : hash) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace

absl::StatusOr<SubmitCheck> SubmitCheck::Make(const std::vector<std::string>& data_roots,
                                              const std::string& jobs_folder) {
  std::vector<std::string> weight_roots = data_roots;
  weight_roots.push_back(jobs_folder);
  SHARDMAX_ASSIGN_OR_RETURN(DataRoots data, DataRoots::Make(data_roots, "/"));
  SHARDMAX_ASSIGN_OR_RETURN(DataRoots weights, DataRoots::Make(weight_roots, "/"));
  std::vector<std::string> pool_roots;
  for (const std::string& root : weight_roots) {
    std::error_code error;
    pool_roots.push_back(std::filesystem::canonical(root, error).string());
    if (error) return ErrnoError(error.value(), root);
  }
  return SubmitCheck(std::move(data), std::move(weights), std::move(pool_roots));
}

void SubmitCheck::ResolveTrain(v1::Train& train, std::vector<std::string>& mistakes) const {
  if (train.has_dataset()) {
    ResolvePath(data_, "train.dataset.features", train.mutable_dataset()->mutable_features(), mistakes);
    ResolvePath(data_, "train.dataset.labels", train.mutable_dataset()->mutable_labels(), mistakes);
  }
  if (train.has_validation()) {
    ResolvePath(data_, "train.validation.features", train.mutable_validation()->mutable_features(), mistakes);
    ResolvePath(data_, "train.validation.labels", train.mutable_validation()->mutable_labels(), mistakes);
  }
  if (train.init().has_weights()) {
    ResolvePath(weights_, "train.init.weights", train.mutable_init()->mutable_weights(), mistakes);
  }
}

void SubmitCheck::ResolveEvaluate(v1::Evaluate& evaluate, std::vector<std::string>& mistakes) const {
  ResolvePath(data_, "evaluate.embeddings", evaluate.mutable_embeddings(), mistakes);
  ResolvePath(data_, "evaluate.identities", evaluate.mutable_identities(), mistakes);
  if (evaluate.verification().has_pairs()) {
    ResolvePath(data_, "evaluate.verification.pairs", evaluate.mutable_verification()->mutable_pairs(), mistakes);
  }
}

absl::StatusOr<v1::JobSpec> SubmitCheck::Resolve(const v1::JobSpec& spec) const {
  std::vector<std::string> mistakes = Mistakes(spec);
  v1::JobSpec resolved = spec;
  if (resolved.has_train()) ResolveTrain(*resolved.mutable_train(), mistakes);
  if (resolved.has_evaluate()) ResolveEvaluate(*resolved.mutable_evaluate(), mistakes);
  if (!mistakes.empty()) return InvalidArgument("{}", absl::StrJoin(mistakes, "\n"));
  return ResolveJobSpec(resolved);
}

absl::StatusOr<JobRecord> ToRecord(const v1::SubmitJobRequest& request, const std::string& owner,
                                   size_t max_spec_bytes) {
  const std::string& key = request.idempotency_key();
  if (key.size() > kMaxKeyBytes || std::any_of(key.begin(), key.end(), [](char c) { return c < ' ' || c > '~'; })) {
    return InvalidArgument("idempotency_key is {}: allowed is up to {} printable ASCII characters", Quoted(key),
                           kMaxKeyBytes);
  }
  if (request.spec().ByteSizeLong() > max_spec_bytes) {
    return Error(absl::StatusCode::kResourceExhausted, "the spec has {} bytes: at most {} are allowed",
                 request.spec().ByteSizeLong(), max_spec_bytes);
  }
  JobRecord record;
  record.job.set_name(request.spec().name());
  record.job.set_owner(owner);
  *record.job.mutable_spec() = request.spec();
  record.submit_key = key;
  record.submit_digest = DigestOf(request.spec());
  return record;
}

}  // namespace shardmax
