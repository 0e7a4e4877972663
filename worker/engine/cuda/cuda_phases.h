// The phases of a step between devices: what the host puts on two streams, and what it reads at the end.
//
// One stream has the work on the shard, the other the wire: blocks of rows, collectives, and the way of the gradients
// home. So the rows of the next step travel while the weights are updated.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/base/device_buffer.h"
#include "worker/engine/cuda/batch_buffers.h"
#include "worker/engine/cuda/exchange_buffers.h"
#include "worker/engine/cuda/graph_cache.h"
#include "worker/engine/cuda/step_kernels.h"
#include "worker/engine/cuda/tile_work.h"
#include "worker/engine/device_phases.h"
#include "worker/engine/engine.h"

namespace shardmax::cuda {

class CudaPhases final : public DevicePhases {
 public:
  // Borrows work and batch. `device` is current. `l2_bytes`: as BatchBuffers::Reserve.
  static absl::StatusOr<std::unique_ptr<CudaPhases>> Make(const EngineOptions& options, int device, int64_t l2_bytes,
                                                          TileWork& work, BatchBuffers& batch);

  absl::Status Reserve(const DeviceStepShape& shape) override;
  DeviceRows Begin(const DeviceStepShape& shape, const LossParams& loss, const UpdateRule& rule) override;
  DeviceStream wire() const override { return wire_.get(); }
  absl::Status SendRows() override;
  DeviceBlocks row_blocks() const override;
  absl::Status LabelCosines() override;
  float* label_cosines() const override { return batch_.label_cosines.data(); }
  absl::Status Score() override;
  absl::Status SendPartials(std::span<const std::byte> status) override;
  DeviceBlocks partial_blocks() const override;
  absl::Status Outcomes() override;
  absl::Status Backward() override;
  absl::Status SendGradients(float mark) override;
  float* gradient_blocks() const override { return exchange_.gradient_blocks.data(); }
  size_t gradient_block_floats() const override { return static_cast<size_t>(block_.gradient_floats); }
  absl::Status ReceiveGradients() override;
  DeviceEvent outcome_event() const override;
  absl::Status AwaitOutcome() override;
  DeviceOutcome outcome() const override;
  DeviceSeconds seconds() override;
  absl::Status ReadLabels(std::span<int32_t> labels, std::span<float> cosines) override;
  absl::Status ReadPartials(int rank, std::span<ShardPartial> partials) override;

 private:
  // Of the phases that the host does not wait for: one set is of the step before.
  struct BackwardEvents {
    Event begin, end;
    bool recorded = false;
  };

  CudaPhases(const EngineOptions& options, int device, int64_t l2_bytes, TileWork& work, BatchBuffers& batch)
      : options_(options), device_(device), l2_bytes_(l2_bytes), work_(work), batch_(batch) {}

  absl::Status Prepare();
  cudaStream_t compute() const { return work_.stream(); }
  int64_t rows() const { return shape_.rows(); }
  RowParts parts() const {
    return {exchange_.first_rows.data(), shape_.ranks(), static_cast<int>(shape_.block_rows())};
  }
  std::byte* MyBlock(const DeviceBlocks& blocks) const {
    return blocks.data + static_cast<size_t>(shape_.rank) * blocks.block_bytes;
  }
  RowNumbers numbers() const { return RowNumbers::In(batch_.row_numbers.data(), rows()); }
  int64_t generation() const { return batch_.generation + exchange_.generation; }
  GraphKey KeyOf(GraphPhase phase) const;
  // `to` goes on when `from` has come here; the time is kept in `event`.
  absl::Status Follow(cudaStream_t from, const Event& event, cudaStream_t to);
  absl::Status EnqueueOutcomes();
  BackwardEvents& backward() { return backward_[step_ % 2]; }

  const EngineOptions& options_;
  const int device_;
  const int64_t l2_bytes_;
  TileWork& work_;
  BatchBuffers& batch_;
  Stream wire_;
  ExchangeBuffers exchange_;
  GraphCache graphs_;

  DeviceStepShape shape_;
  BlockSizes block_;
  UpdateRule rule_;
  int64_t step_ = 0;  // Steps begun.

  // In the order of a step, and where they are recorded.
  Event gather_began_;                      // wire
  Event gathered_;                          // wire
  Event label_began_;                       // compute
  Event labels_done_;                       // compute
  Event cosines_summed_;                    // wire
  Event score_began_;                       // compute
  Event scored_;                            // compute
  Event partials_gathered_;                 // wire
  Event outcome_there_;                     // compute
  std::array<BackwardEvents, 2> backward_;  // compute
  Event feature_gradients_done_;            // compute
  Event scatter_began_;                     // wire
  Event gradients_home_;                    // wire
};

}  // namespace shardmax::cuda
