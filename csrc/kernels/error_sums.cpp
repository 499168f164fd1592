#include "kernels/error_sums.hpp"

#include <algorithm>
#include <vector>

#include "kernels/parallel.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {
namespace {

// The values of a block are summed by one thread, and blocks are added in their order.
constexpr std::size_t kBlock = 32768;

ErrorSums joined(const double* lanes) {
  double sums[kErrorSums] = {};
  for (std::size_t i = 0; i < kErrorSums * kErrorLanes; ++i) sums[i / kErrorLanes] += lanes[i];
  return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

void add(const ErrorSums& block, ErrorSums& sums) {
  sums.total += block.total;
  sums.signal += block.signal;
  sums.noise += block.noise;
  sums.other += block.other;
  sums.product += block.product;
}

template <typename Value, typename Add>
ErrorSums sums_of_blocks(const Value* reference, const Value* other, std::size_t size,
                         int requested, const Add& add_errors) {
  std::vector<ErrorSums> blocks(ceil_div(size, kBlock));
  parallel_for(blocks.size(), thread_count(requested, size), [&](std::size_t block) {
    const std::size_t begin = block * kBlock;
    double lanes[kErrorSums * kErrorLanes] = {};
    add_errors(reference + begin, other + begin, std::min(kBlock, size - begin), lanes);
    blocks[block] = joined(lanes);
  });
  ErrorSums sums{};
  for (const ErrorSums& block : blocks) add(block, sums);
  return sums;
}

}  // namespace

ErrorSums error_sums(const float* reference, const float* other, std::size_t size, int threads) {
  return sums_of_blocks(reference, other, size, threads, kernels().add_errors);
}

ErrorSums error_sums(const double* reference, const double* other, std::size_t size, int threads) {
  return sums_of_blocks(reference, other, size, threads, kernels().add_errors_of_doubles);
}

}  // namespace pyquant
