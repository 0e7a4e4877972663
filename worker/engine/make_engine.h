// Engines by name.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/engine.h"

namespace shardmax {

enum class EngineKind { kCpu, kReference };

// An engine, and a sentence for the log on what it runs on.
struct EngineChoice {
  std::unique_ptr<Engine> engine;
  std::string description;
};

absl::StatusOr<EngineChoice> MakeEngine(EngineKind kind, const EngineOptions& options);

}  // namespace shardmax
