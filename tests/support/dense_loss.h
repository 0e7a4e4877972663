// The loss of the whole head, written plainly from its definition, to compare the sharded implementation with.
//
// Float64, one row and one class at a time, and no code in common with worker/: an error in the mathematics there
// cannot hide here. Shapes: B rows, D feature width, C classes.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace shardmax {

enum class DenseExtension { kMonotone, kEasy, kLinear };

struct DenseLossSpec {
  double scale = 32;
  double m1 = 1, m2 = 0, m3 = 0;
  DenseExtension extension = DenseExtension::kMonotone;
  double t = 1;
  double gamma = 0;
  double keep = 1;
};

struct DenseProblem {
  int64_t rows = 0, dim = 0, classes = 0;
  std::vector<double> features;  // [B, D], any length but zero where the label is not -1
  std::vector<double> weights;   // [C, D]; a row of zeros has cosine 0 with everything
  std::vector<int32_t> labels;   // [B], -1 is ignored
};

struct DenseLossResult {
  double loss = 0;                          // Mean over the kept rows; 0 if there are none.
  std::vector<double> row_losses;           // [B], 0 where ignored
  std::vector<double> label_cosines;        // [B], 0 where ignored
  std::vector<double> target_logits;        // [B], f; 0 where ignored
  std::vector<std::vector<double>> others;  // [B][C] cosines; empty where ignored
  std::vector<bool> support_vectors;        // [B * C], over classes other than the label
  std::vector<bool> kept;                   // [B], by hard mining
  double mean_label_cosine = 0;             // Over the rows that are not ignored.
  double support_vector_ratio = 0;          // Over pairs of a row that is not ignored and a class other than its label.

  // How far the nearest discontinuous choice is from being made otherwise: the least |cos_k - f|.
  double mask_margin = std::numeric_limits<double>::infinity();
  // The least loss kept minus the largest loss dropped; infinite if none is dropped.
  double mining_margin = std::numeric_limits<double>::infinity();
};

// f at an angle in [0, pi] with cosine `cosine`.
double DenseTargetLogit(const DenseLossSpec& spec, double cosine);

DenseLossResult DenseLoss(const DenseLossSpec& spec, const DenseProblem& problem);

// The gradients of DenseLoss by central differences of step h: those of the features [B, D] and of the weights [C, D].
// Where a difference would cross a choice of mask or hard mining, `crossed` is true and the gradients mean nothing.
struct DenseGradients {
  std::vector<double> features, weights;
  bool crossed = false;
};
DenseGradients DenseFiniteDifferences(const DenseLossSpec& spec, const DenseProblem& problem, double h = 1e-6);

}  // namespace shardmax
