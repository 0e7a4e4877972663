#include "worker/data/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <new>

namespace shardmax {

Checksum::Checksum() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

void Checksum::Free::operator()(XXH3_state_s* state) const {
  XXH3_freeState(state);
}

void Checksum::Update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
}

std::string Checksum::Text() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return fmt::format("{}{:016x}{:016x}", kChecksumPrefix, hash.high64, hash.low64);
}

bool IsChecksum(std::string_view text) {
  constexpr size_t kDigits = 32;
  if (text.size() != kChecksumPrefix.size() + kDigits || !text.starts_with(kChecksumPrefix)) return false;
  text.remove_prefix(kChecksumPrefix.size());
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace shardmax
