// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "compiled/linear_scan.cuh"
#include "support/device.cuh"
#include "support/linear_scan_vjp_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using step = gpu::detail::linear_adjoint_step;
using complex64 = std::complex<float>;

template <class Test>
void for_all_types(Test const& test) {
  for_types<float, double, bfloat16, complex64>(test);
}

TEST(LinearScanVjp, OfRowsGivesTheGradientsOfTheRecurrence) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    index_t const tile = rows_tile_length<T, step>;
    std::uint64_t seed = 1;
    for (auto const order : both_ways)
      for (auto const& how : {rows, shifted_rows, pitched_rows}) {
        for (index_t const length : {0, 1, 31, 32, 33, 1009}) {
          for (index_t const batch : {1, 7, 300}) {
            expect_gradients<T>(
                linear_case{.shape = {batch, length, 1}, .order = order, .seed = seed++}.all(how));
          }
        }
        for (index_t const length :
             {tile - 1, tile, tile + 1, 2 * tile, 4 * tile, index_t{10007}}) {
          expect_gradients<T>(
              linear_case{.shape = {1, length, 3}, .order = order, .seed = seed++}.all(how));
        }
      }
  });
}

TEST(LinearScanVjp, OfColumnsGivesTheGradientsOfTheRecurrence) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    std::uint64_t seed = 1;
    for (auto const order : both_ways)
      for (auto const& how : {columns, shifted_columns, wide_columns, spread_columns})
        for (index_t const channels : {1, 2, 7, 8, 16, 33, 100}) {
          index_t const tile = columns_tile_length<T, step>(channels);
          for (index_t const length :
               {index_t{0}, index_t{1}, index_t{31}, tile - 1, tile, tile + 1, 2 * tile + 33}) {
            expect_gradients<T>(
                linear_case{.shape = {1, length, channels}, .order = order, .seed = seed++}.all(
                    how));
          }
        }
  });
}

// Decays of size 1 and integer cotangents: what arrives is exact in any order.
TEST(LinearScanVjp, CarriesCotangentsOverGroupsAndBlocksOfTiles) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways) {
      linear_case of{.shape = {2, 67 * rows_tile_length<T, step> + 5, 1},
                     .order = order,
                     .kind = gates::units};
      for (auto const& how : {rows, shifted_rows, pitched_rows}) expect_gradients<T>(of.all(how));
      for (index_t const more : {5, 8}) {
        of.shape = {300, rows_tile_length<T, step> + more, 1};  // many rows
        for (auto const& how : {rows, pitched_rows}) expect_gradients<T>(of.all(how));
      }
      of.shape = {1, 2 * columns_tile_length<T, step>(32) + 3, 10504};  // many bands of channels
      expect_gradients<T>(of.all(columns));
      for (index_t const channels : {3, 32}) {
        of.shape = {2, 130 * columns_tile_length<T, step>(channels) + 3, channels};
        expect_gradients<T>(of.all(columns));
      }
      of.shape = {1, 80 * columns_tile_length<T, step>(32) + 3, 384};
      expect_gradients<T>(of.all(columns));
    }
  });
  for (auto const order : both_ways) {
    linear_case of{.shape = {1, 2051 * rows_tile_length<float, step> + 7, 1},
                   .order = order,
                   .kind = gates::units};
    expect_gradients<float>(of.all(rows));
    of.shape = {1, 300 * columns_tile_length<float, step>(32) + 7, 32};  // more tiles than blocks
    expect_gradients<float>(of.all(columns));
    of.shape = {1, 300 * columns_tile_length<bfloat16, step>(32) + 7, 32};
    expect_gradients<bfloat16>(of.all(columns));
    // One piece of memory, a multiple of 16 bytes or not; of 5 and 10 some lanes have none.
    for (index_t const channels : {5, 7, 10, 16}) {
      of.shape = {1, 70003, channels};
      expect_gradients<float>(of.all(columns));
      expect_gradients<bfloat16>(of.all(columns));
    }
  }
}

TEST(LinearScanVjp, KeepsTermsOfManyTiles) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (auto const& how : {rows, pitched_rows, columns}) {
      linear_case const of{.shape = {1, 100003, 3}, .order = order, .kind = gates::slow};
      expect_gradients<float>(of.all(how));
      expect_gradients<double>(of.all(how));
    }
}

TEST(LinearScanVjp, TakesLayoutsOfEveryKindAndOfEachArrayItsOwn) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (index_t const length : {33, 5003}) {
      linear_case of{.shape = {3, length, 5}, .order = order};
      for (auto const& how : {rows, rows_apart, rows_from_their_ends, columns, batch_innermost}) {
        expect_gradients<float>(of.all(how));
        of.carry = spread_columns;
        expect_gradients<float>(of.all(how));
      }
      of.decay = rows, of.drive = shifted_rows, of.states = pitched_rows;
      expect_gradients<float>(of);
      of.decay = columns, of.drive = rows, of.states = wide_columns;
      expect_gradients<float>(of);
      for (auto const& decay : {same_for_all_steps, same_for_all_channels, constant}) {
        of = of.all(rows);
        of.decay = decay;
        expect_gradients<float>(of);
      }
    }
}

TEST(LinearScanVjp, MayStoreGradientsWhereDecayOrCotangentWas) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (auto const& how : {rows, shifted_rows, pitched_rows, columns, spread_columns})
      for (index_t const length : {33, 40009}) {
        linear_case of{.shape = {1, length, 5}, .order = order};
        of.place = of.in_drive;
        expect_gradients<float>(of.all(how));
        of.place = of.in_decay;
        expect_gradients<float>(of.all(how));
        expect_gradients<bfloat16>(of.all(how));
      }
}

TEST(LinearScanVjp, NeedsNoInitialStateOrFinalCotangent) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (bool const initial : {false, true})
      for (bool const final : {false, true})
        for (auto const& how : {rows, pitched_rows, columns})
          for (index_t const length : {0, 5, 7001}) {
            linear_case const of{.shape = {2, length, 3},
                                 .order = order,
                                 .has_initial = initial,
                                 .has_final = final};
            expect_gradients<float>(of.all(how));
          }
}

TEST(LinearScanVjp, RepeatsBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (auto const order : both_ways)
    for (auto const& how : {rows, pitched_rows, columns}) {
      auto const of = linear_case{.shape = {1, 300007, 3}, .order = order}.all(how);
      SCOPED_TRACE(describe<float>(of));
      vjp_problem<float> first(stream, of), again(stream, of);
      first.run(stream);
      for (int run = 0; run < 20; ++run) {
        again.run(stream);
        ASSERT_TRUE(same_bits(first.to_decay, again.to_decay)) << "run " << run;
        ASSERT_TRUE(same_bits(first.to_drive, again.to_drive)) << "run " << run;
        ASSERT_TRUE(same_bits(first.to_initial, again.to_initial)) << "run " << run;
      }
    }
}

// The loss Σ cotangent·state is linear in drives, initial states and any one decay of a row, so
// along a line on which these move it is a quadratic polynomial: its central difference is its
// slope, but for rounding, however long the line.
TEST(LinearScanVjp, IsTheSlopeOfTheScan) {
  SSM_SKIP_WITHOUT_DEVICE();
  index_t const length = 331, count = 2 * length * 3, moved_step = 100;
  random_stream const line{9};
  for (auto const order : both_ways)
    for (auto const& how : {rows, columns}) {
      auto const of = linear_case{.shape = {2, length, 3}, .order = order}.all(how);
      SCOPED_TRACE(describe<double>(of));
      gpu::stream const stream;
      vjp_problem<double> vjp(stream, of);
      double size_of_terms = 0;
      // Call visit(number, its gradient) for each number of the problem that moves.
      auto const each_moving = [&](linear_problem<double>& scan, auto const& visit) {
        scan.drive.each([&](auto b, auto t, auto c) {
          visit(scan.drive(b, t, c), vjp.to_drive(b, t, c));
          if (t == moved_step) visit(scan.decay(b, t, c), vjp.to_decay(b, t, c));
          if (t == 0) visit(scan.initial(b, 0, c), vjp.to_initial(b, 0, c));
        });
      };
      auto const loss_at = [&](double place) {
        linear_problem<double> scan(stream, of);
        index_t i = 0;
        each_moving(scan, [&](double& number, double) { number += place * line.normal(i++); });
        scan.run(stream);
        double loss = 0;
        scan.states.each(
            [&](auto b, auto t, auto c) { loss += vjp.cotangent(b, t, c) * scan.states(b, t, c); });
        scan.final.each([&](auto b, auto, auto c) {
          loss += vjp.final_cotangent(b, 0, c) * scan.final(b, 0, c);
        });
        time_window const window = whole(length, order);
        scan.initial.each([&](auto b, auto, auto c) {
          double size = std::abs(scan.initial(b, 0, c));
          for (index_t k = 0; k < length; ++k) {
            index_t const t = window(k);
            size = std::abs(scan.decay(b, t, c)) * size + std::abs(scan.drive(b, t, c));
            size_of_terms += std::abs(vjp.cotangent(b, t, c)) * size;
          }
          size_of_terms += std::abs(vjp.final_cotangent(b, 0, c)) * size;
        });
        if (place == 0) {
          scan.states.each([&](auto... at) { vjp.states(at...) = scan.states(at...); });
          scan.initial.each([&](auto... at) { vjp.initial(at...) = scan.initial(at...); });
        }
        return loss;
      };
      loss_at(0);
      vjp.run(stream);
      linear_problem<double> numbers(stream, of);
      index_t i = 0;
      double slope = 0;
      each_moving(numbers, [&](double, double gradient) { slope += gradient * line.normal(i++); });
      double const found = (loss_at(1) - loss_at(-1)) / 2;
      // A term is the product of at most length + 3 numbers, moved by a few roundings on its way
      // (term_sizes) and once in each of at most count sums.
      double const eps = std::numeric_limits<double>::epsilon();
      EXPECT_NEAR(found, slope, (static_cast<double>(count + length) + 16) * eps * size_of_terms);
    }
}

}  // namespace
