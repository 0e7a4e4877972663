#include "tests/support/dense_loss.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace shardmax {
namespace {

using std::numbers::pi;

double Cosine(const double* x, const double* w, int64_t dim) {
  double dot = 0, xx = 0, ww = 0;
  for (int64_t i = 0; i < dim; ++i) {
    dot += x[i] * w[i];
    xx += x[i] * x[i];
    ww += w[i] * w[i];
  }
  if (ww == 0) return 0;
  return std::clamp(dot / (std::sqrt(xx) * std::sqrt(ww)), -1.0, 1.0);
}

// Losses, masks and cosines of row b.
void EvaluateRow(const DenseLossSpec& spec, const DenseProblem& problem, int64_t b, DenseLossResult& result) {
  const int32_t y = problem.labels[b];
  std::vector<double>& cosines = result.others[b];
  for (int64_t k = 0; k < problem.classes; ++k) {
    cosines.push_back(Cosine(&problem.features[b * problem.dim], &problem.weights[k * problem.dim], problem.dim));
  }
  const double f = DenseTargetLogit(spec, cosines[y]);
  std::vector<double> z(cosines.size());
  for (int64_t k = 0; k < problem.classes; ++k) {
    if (k == y) {
      z[k] = spec.scale * f;
      continue;
    }
    const bool is_support_vector = cosines[k] > f;
    result.support_vectors[b * problem.classes + k] = is_support_vector;
    result.mask_margin = std::min(result.mask_margin, std::abs(cosines[k] - f));
    z[k] = is_support_vector ? spec.scale * (spec.t * cosines[k] + spec.t - 1) : spec.scale * cosines[k];
  }
  const double largest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double logit : z) sum += std::exp(logit - largest);
  const double log_p = z[y] - largest - std::log(sum);
  result.row_losses[b] = std::pow(1 - std::exp(log_p), spec.gamma) * -log_p;
  result.label_cosines[b] = cosines[y];
  result.target_logits[b] = f;
}

void KeepHardest(const DenseLossSpec& spec, const std::vector<int64_t>& counted, DenseLossResult& result) {
  std::vector<int64_t> order = counted;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return result.row_losses[a] > result.row_losses[b]; });
  // The smallest count that is at least keep * B'.
  size_t kept = 0;
  while (static_cast<double>(kept) < spec.keep * static_cast<double>(counted.size())) ++kept;
  for (size_t i = 0; i < kept; ++i) {
    result.kept[order[i]] = true;
    result.loss += result.row_losses[order[i]] / static_cast<double>(kept);
  }
  if (kept > 0 && kept < order.size()) {
    result.mining_margin = result.row_losses[order[kept - 1]] - result.row_losses[order[kept]];
  }
}

}  // namespace

double DenseTargetLogit(const DenseLossSpec& spec, double cosine) {
  if (spec.extension == DenseExtension::kEasy && cosine <= 0) return cosine;
  const double phi = spec.m1 * std::acos(cosine) + spec.m2;
  if (spec.extension == DenseExtension::kLinear && phi > pi) return cosine - spec.m2 * std::sin(spec.m2);
  const int j = static_cast<int>(std::floor(phi / pi));
  return (j % 2 == 0 ? 1 : -1) * std::cos(phi) - 2 * j - spec.m3;
}

DenseLossResult DenseLoss(const DenseLossSpec& spec, const DenseProblem& problem) {
  DenseLossResult result;
  result.row_losses.resize(problem.rows);
  result.label_cosines.resize(problem.rows);
  result.target_logits.resize(problem.rows);
  result.others.resize(problem.rows);
  result.support_vectors.resize(problem.rows * problem.classes);
  result.kept.resize(problem.rows);
  std::vector<int64_t> counted;
  for (int64_t b = 0; b < problem.rows; ++b) {
    if (problem.labels[b] < 0) continue;
    counted.push_back(b);
    EvaluateRow(spec, problem, b, result);
  }
  KeepHardest(spec, counted, result);
  if (counted.empty()) return result;
  const auto rows = static_cast<double>(counted.size());
  result.mean_label_cosine = std::accumulate(result.label_cosines.begin(), result.label_cosines.end(), 0.0) / rows;
  const auto support_vectors = std::count(result.support_vectors.begin(), result.support_vectors.end(), true);
  result.support_vector_ratio =
      static_cast<double>(support_vectors) / (rows * static_cast<double>(problem.classes - 1));
  return result;
}

DenseGradients DenseFiniteDifferences(const DenseLossSpec& spec, const DenseProblem& problem, double h) {
  DenseGradients gradients;
  DenseProblem moved = problem;
  const DenseLossResult centre = DenseLoss(spec, problem);
  const auto loss_at = [&](double& variable, double value) {
    variable = value;
    const DenseLossResult result = DenseLoss(spec, moved);
    if (result.support_vectors != centre.support_vectors || result.kept != centre.kept) gradients.crossed = true;
    return result.loss;
  };
  const auto differentiate = [&](std::vector<double>& variables, std::vector<double>& gradient) {
    for (double& variable : variables) {
      const double value = variable;
      gradient.push_back((loss_at(variable, value + h) - loss_at(variable, value - h)) / (2 * h));
      variable = value;
    }
  };
  differentiate(moved.features, gradients.features);
  differentiate(moved.weights, gradients.weights);
  return gradients;
}

}  // namespace shardmax
