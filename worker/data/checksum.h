// The checksum of checkpoint files: XXH3, 128 bits, of any number of pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace shardmax {

// Begins every checksum, to name its kind.
inline constexpr std::string_view kChecksumPrefix = "xxh3_128:";

// The checksum of the bytes passed to Update, in order. It does not protect against an attacker.
class Checksum {
 public:
  Checksum();

  void Update(std::span<const std::byte> bytes);

  // "xxh3_128:" and 32 lower-case hexadecimal digits, as `xxhsum -H128` prints them.
  std::string Text() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

// Whether `text` has the form that Checksum::Text gives.
bool IsChecksum(std::string_view text);

}  // namespace shardmax
