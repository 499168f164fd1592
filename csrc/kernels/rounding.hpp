#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// moments[i, j] += sum over n of samples[n, i] * samples[n, j], for [count, size] samples. Each sum
// is taken in the order of the samples.
void add_moments(const float* samples, std::size_t count, std::size_t size, double* moments,
                 int threads);

// Rounds the rows of a matrix [rows, size] to integers of `bits` bits times the row's step, so that
// products with inputs of these moments [size, size] lose least. One weight after the other takes
// whichever of the two integers around it makes the row's squared error less, in at most `sweeps`
// sweeps or until none changes. This is the objective of AdaRound (arXiv 2004.10568, eq. 21),
// minimized by coordinate descent (QuantEase, arXiv 2309.01885).
template <typename Quantized>
void round_by_moments(const float* weights, std::size_t rows, std::size_t size, const float* steps,
                      const double* moments, int bits, int sweeps, Quantized* quantized,
                      int threads);

}  // namespace pyquant
