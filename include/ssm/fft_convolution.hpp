// SPDX-License-Identifier: Apache-2.0
// fft_convolution.hpp: causal convolution by Fourier transforms. The one header that knows Eigen's.
#pragma once

#include <algorithm>
#include <complex>
#include <concepts>
#include <limits>
#include <thread>
#include <unsupported/Eigen/FFT>
#include <vector>

#include "ssm/causal_convolution.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/execution.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {
namespace detail {

inline constexpr index_t longest_fft_block = index_t{1} << 28;  ///< Eigen counts in int

/// Steps in a piece: `block`, or for 0 a power of two: a quarter of the kernel, but from 1024 (or
/// the length) up to 65536, what a cache holds, or a 32nd of kernels too long for that.
inline index_t fft_block(index_t block, index_t kernel_length, index_t length) {
  require<shape_error>(block >= 0 && block <= longest_fft_block && (block & (block - 1)) == 0,
                       "fft_convolution: block is ", block,
                       ", expected 0 (from the shape) or a power of two up to ", longest_fft_block);
  if (block > 0) return std::max<index_t>(block, 2);
  index_t const kernel = std::min(kernel_length, length);
  index_t const wanted = std::clamp<index_t>(kernel / 4, 1024, 65536);
  index_t const steps = std::min({std::max(wanted, kernel / 32), length, longest_fft_block});
  for (block = 2; block < steps;) block *= 2;
  return block;
}

/// y = K * x for one kernel and one input, both cut into pieces of S steps. With the transforms of
/// pieces padded to 2S, piece q of the output is the first half of Σ_p K̂_p X̂_{q-p} and what the
/// second half of piece q-1 adds (uniformly partitioned overlap-add; one piece is the plain FFT).
template <std::floating_point Real>
class fft_convolver {
 public:
  fft_convolver(index_t block, index_t kernel_length, index_t length)
      : block_{block},
        length_{length},
        kernel_length_{std::min(kernel_length, length)},
        kernel_pieces_{(kernel_length_ + block - 1) / block},
        spectra_of_kernel_(count(kernel_pieces_ * (block + 1))),
        spectra_of_input_(spectra_of_kernel_.size()),
        product_(count(block + 1)),
        signal_(count(2 * block)),
        tail_(count(block)) {
    fft_.SetFlag(Eigen::FFT<Real>::HalfSpectrum);
  }

  /// The kernel of the convolutions to come: kernel_length numbers.
  void set_kernel(Real const* kernel) {
    for (index_t p = 0; p < kernel_pieces_; ++p)
      transform(kernel + p * block_, kernel_length_ - p * block_, spectrum(spectra_of_kernel_, p));
  }

  /// y, length numbers, from as many x; the two may be the same memory.
  void operator()(Real const* x, Real* y) {
    if (kernel_pieces_ == 0) {
      std::fill_n(y, length_, Real(0));
      return;
    }
    std::fill(tail_.begin(), tail_.end(), Real(0));
    for (index_t q = 0; q * block_ < length_; ++q) {
      index_t const begin = q * block_, width = std::min(block_, length_ - begin);
      transform(x + begin, width, spectrum(spectra_of_input_, q % kernel_pieces_));
      std::fill(product_.begin(), product_.end(), std::complex<Real>(0));
      for (index_t p = 0; p <= std::min(q, kernel_pieces_ - 1); ++p)
        add_product(spectrum(spectra_of_kernel_, p),
                    spectrum(spectra_of_input_, (q - p) % kernel_pieces_));
      fft_.inv(signal_.data(), product_.data(), 2 * block_);
      for (index_t i = 0; i < width; ++i) y[begin + i] = signal_[count(i)] + tail_[count(i)];
      std::copy(signal_.begin() + block_, signal_.end(), tail_.begin());
    }
  }

 private:
  using spectra = std::vector<std::complex<Real>>;

  static std::size_t count(index_t n) { return static_cast<std::size_t>(n); }
  std::complex<Real>* spectrum(spectra& of, index_t piece) {
    return of.data() + piece * (block_ + 1);
  }

  void transform(Real const* from, index_t available, std::complex<Real>* to) {
    std::fill(signal_.begin(), signal_.end(), Real(0));
    std::copy_n(from, std::min(available, block_), signal_.begin());
    fft_.fwd(to, signal_.data(), 2 * block_);
  }

  /// Written out: std::complex would look for infinities.
  void add_product(std::complex<Real> const* a, std::complex<Real> const* b) {
    for (index_t i = 0; i <= block_; ++i) {
      Real const re = a[i].real() * b[i].real() - a[i].imag() * b[i].imag();
      Real const im = a[i].real() * b[i].imag() + a[i].imag() * b[i].real();
      product_[count(i)] += std::complex<Real>(re, im);
    }
  }

  index_t block_, length_, kernel_length_, kernel_pieces_;
  spectra spectra_of_kernel_, spectra_of_input_, product_;
  std::vector<Real> signal_, tail_;
  Eigen::FFT<Real> fft_;
};

/// body(workspace, c) for every channel; each thread makes one workspace and takes every
/// `workers`-th channel, so the results must not depend on which.
template <class Make, class Body>
void for_each_channel(int threads, index_t channels, Make const& make, Body const& body) {
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  auto const workers = static_cast<int>(std::min<index_t>(threads, channels));
  parallel_for(workers, workers, [&](index_t begin, index_t end) {
    for (index_t worker = begin; worker < end; ++worker) {
      auto workspace = make();
      for (index_t c = worker; c < channels; c += workers) body(workspace, c);
    }
  });
}

}  // namespace detail

/// The k of fft_convolution's bound: |error| <= k·eps·‖K‖₂·‖x‖₂ for a kernel and an input (a batch
/// and channel) of these lengths, in the worst case.
/// Derivation, with u = eps/2 and n = 2S numbers in a transform: a radix-2 stage of multiplication
/// and addition adds at most (μ + 4√2)u, with twiddle factors off by μu, and a radix-4 stage less
/// than two of them (Higham 2002, Accuracy and Stability of Numerical Algorithms, theorem 24.2).
/// Eigen's kissfft has μ <= 4, and μ <= 10 in the stage that splits real numbers; so a transform
/// is off by e = (9.66 log2 n + 6)u in the 2-norm. The products add √5 u; by Cauchy and Schwarz
/// Σ_k |K̂_k X̂_k|/n <= ‖K‖₂‖x‖₂, of which each output is a sum with unit factors, so the inverse
/// adds e of that once more: 3e + √5 u. Sums over P kernel pieces add P·u, and where there are
/// several pieces an output is the sum of two such results: twice that and one rounding.
inline double fft_convolution_bound(index_t kernel_length, index_t length, index_t block = 0) {
  index_t const S = detail::fft_block(block, kernel_length, length);
  double log2_n = 1;
  for (index_t n = S; n > 1; n /= 2) ++log2_n;
  index_t const kernel = std::min(kernel_length, length);
  auto const pieces = static_cast<double>((kernel + S - 1) / S);
  double const one = 1.5 * (9.66 * log2_n + 6) + 1.12 + pieces / 2;
  return length > S ? 2 * one + 1 : one;
}

/// y_t = Σ_l K_l x_{t-l} over l <= t, the twin of causal_convolution for long kernels. `block`, a
/// power of two, is how many steps are transformed at once; 0: as suits the kernel's length.
/// Shapes    kernel (channel, length), shorter or longer than x or empty; x, y (batch, time,
///           channel), and y may be x.
/// Accuracy  fft_convolution_bound·eps·‖K‖₂‖x‖₂, about 30·log2(block)·eps: small beside the
///           largest outputs, not beside each. Where outputs differ much in size (kernels or inputs
///           that grow or decay by many orders), the recurrence or the direct sum keeps the digits.
/// Special   a NaN or infinity makes the whole piece and what follows NaN, earlier steps included.
/// Cost      for each lane two transforms of each piece and length·min(kernel, length)/block
/// complex
///           products; for each channel the transforms of its kernel. Memory for each thread about
///           4 times the kernel, a row of x, and 6 pieces.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads; channels are shared out among them.
/// Gradient  fft_convolution_vjp.    Tested  tests/fft_convolution_test.cpp.
template <std::floating_point Real, execution_policy Policy>
void fft_convolution(Policy policy, tensor_view<Real const, 2> kernel, sequence_view<Real const> x,
                     sequence_view<Real> y, index_t block = 0) {
  detail::require_convolution_shapes<Real>(kernel, x, y, "fft_convolution: kernel",
                                           "fft_convolution: y");
  detail::require_writable(y, "fft_convolution: y");
  index_t const length = x.extent(1), kernel_length = std::min(kernel.extent(1), length);
  block = detail::fft_block(block, kernel_length, length);
  int const threads = detail::plan(policy, x.extent(2), length).threads;
  auto const workspace = [&] { return detail::fft_convolver<Real>(block, kernel_length, length); };
  detail::for_each_channel(threads, x.extent(2), workspace, [&](auto& convolve, index_t c) {
    std::vector<Real> row(static_cast<std::size_t>(length));
    for (index_t l = 0; l < kernel_length; ++l) row[static_cast<std::size_t>(l)] = kernel(c, l);
    convolve.set_kernel(row.data());
    for (index_t b = 0; b < x.extent(0); ++b) {
      for (index_t t = 0; t < length; ++t) row[static_cast<std::size_t>(t)] = x(b, t, c);
      convolve(row.data(), row.data());
      for (index_t t = 0; t < length; ++t) y(b, t, c) = row[static_cast<std::size_t>(t)];
    }
  });
}

/// Gradient of fft_convolution, added to the views given (empty: not wanted): correlations, which
/// are convolutions in reversed time,
///   to K_l: Σ_bt g_t x_{t-l},   to x_s: Σ_l K_l g_{s+l}, with g the cotangent of y.
/// Accuracy  fft_convolution_bound·eps times ‖K‖₂‖g‖₂ for x; for K with both lengths that of x,
///           times Σ_b‖g_b‖₂‖x_b‖₂, and batch/2 eps of that.
/// Cost      as fft_convolution for each of the two, with a kernel as long as x for that to K;
///           memory for the gradient of x once more.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
template <std::floating_point Real, execution_policy Policy>
void fft_convolution_vjp(Policy policy, tensor_view<Real const, 2> kernel,
                         sequence_view<Real const> x, sequence_view<Real const> y_cotangent,
                         tensor_view<Real, 2> kernel_gradient, sequence_view<Real> x_gradient,
                         index_t block = 0) {
  detail::require_convolution_shapes<Real>(kernel, x, y_cotangent, "fft_convolution_vjp: kernel",
                                           "fft_convolution_vjp: y_cotangent");
  detail::require_gradient_shape(kernel_gradient, kernel.extents(),
                                 "fft_convolution_vjp: kernel_gradient", "channel, length");
  detail::require_gradient_shape(x_gradient, x.extents(), "fft_convolution_vjp: x_gradient",
                                 "batch, time, channel");
  detail::fft_block(block, 0, 0);
  int const threads = detail::plan(policy, x.extent(2), x.extent(1)).threads;
  index_t const length = x.extent(1), channels = x.extent(2);
  if (x_gradient.data_handle() != nullptr) {
    tensor<Real, 3> to_x(x.extents());
    fft_convolution<Real>(policy, kernel, y_cotangent.reversed(1), to_x.view().reversed(1), block);
    detail::sum_into(threads, time_window{0, length, 1}, x_gradient.broadcast(3, 1),
                     [&](index_t b, index_t t, index_t c, index_t) { return to_x(b, t, c); });
  }
  if (kernel_gradient.data_handle() == nullptr) return;
  // Σ_t g_t x_{t-l} is element length-1-l of the convolution of x with g in reversed time.
  index_t const kernel_length = std::min(kernel.extent(1), length);
  index_t const piece = detail::fft_block(block, length, length);
  tensor<Real, 2> to_kernel(kernel.extents());
  auto const workspace = [&] { return detail::fft_convolver<Real>(piece, length, length); };
  detail::for_each_channel(threads, channels, workspace, [&](auto& convolve, index_t c) {
    std::vector<Real> row(static_cast<std::size_t>(length));
    for (index_t b = 0; b < x.extent(0); ++b) {
      for (index_t t = 0; t < length; ++t)
        row[static_cast<std::size_t>(length - 1 - t)] = y_cotangent(b, t, c);
      convolve.set_kernel(row.data());
      for (index_t t = 0; t < length; ++t) row[static_cast<std::size_t>(t)] = x(b, t, c);
      convolve(row.data(), row.data());
      for (index_t l = 0; l < kernel_length; ++l)
        to_kernel(c, l) += row[static_cast<std::size_t>(length - 1 - l)];
    }
  });
  detail::sum_into(threads, time_window{0, 1, 1}, kernel_gradient.broadcast(0, 1).broadcast(0, 1),
                   [&](index_t, index_t, index_t c, index_t l) { return to_kernel(c, l); });
}

}  // namespace ssm
