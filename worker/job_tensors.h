// What a checkpoint holds of a rank's shard.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "worker/checkpoint/manifest.h"
#include "worker/engine/engine.h"
#include "worker/head/neighbour_graph.h"

namespace shardmax {

// The tensors of the engine and, of nearest sampling, the graph. Borrows.
struct JobTensors {
  Engine& engine;
  NeighbourGraph* neighbours = nullptr;

  // As Engine::ReadRows and WriteRows, for all of them; those of the graph as NeighbourGraph::ReadBits.
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const {
    if (neighbours != nullptr && tensor == kNeighboursTensor) return neighbours->ReadBits(classes, rows);
    return engine.ReadRows(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) const {
    if (neighbours != nullptr && tensor == kNeighboursTensor) return neighbours->WriteBits(classes, rows);
    return engine.WriteRows(tensor, classes, rows);
  }
};

}  // namespace shardmax
