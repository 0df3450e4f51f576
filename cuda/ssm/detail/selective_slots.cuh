// SPDX-License-Identifier: Apache-2.0
// selective_slots.cuh: where threads of selective_scan keep what they have asked for: packets and
// quads at multiples of their size, or loose ones anywhere.
#pragma once

#include "ssm/detail/selective_packets.cuh"

namespace ssm::gpu::detail {

/// Where each thread keeps a packet that it has asked for, by 16 bytes, next to those of its warp.
template <class T, int Threads>
struct packet_slots {
  static constexpr int parts = stored_packet<T>::words / 4;
  uint4 part[parts][Threads];

  /// Ask for all elements of a packet, at a multiple of 16 bytes, or none; see wait_for_requests.
  __device__ void request(T const* first, index_t, int count) {
    for (int i = 0; i < parts; ++i) {
      request_if(count > 0, &part[i][threadIdx.x], reinterpret_cast<uint4 const*>(first) + i);
    }
  }
  __device__ stored_packet<T> get() const {
    stored_packet<T> packet;
    for (int i = 0; i < parts; ++i) {
      uint4 const words = part[i][threadIdx.x];
      packet.word[4 * i] = words.x, packet.word[4 * i + 1] = words.y;
      packet.word[4 * i + 2] = words.z, packet.word[4 * i + 3] = words.w;
    }
    return packet;
  }
};

/// Where a thread keeps a quad that it has asked for.
template <class T, int Threads>
struct quad_slots {
  using bytes = std::conditional_t<sizeof(T) == 2, uint2, uint4>;
  alignas(16) bytes quad[Threads];

  __device__ void request(int to, T const* first, index_t, int count) {
    request_if(count > 0, &quad[to], first);
  }
  /// Two quads that lie together, in memory as here, from multiples of 16 bytes.
  __device__ void request_two(int to, T const* first, bool is_wanted) {
    static_assert(sizeof(bytes) == 8);
    request_if(is_wanted, reinterpret_cast<uint4*>(&quad[to]), first);
  }
  __device__ stored_quad<T> get(int i) const {
    stored_quad<T> stored;
    bytes const words = quad[i];
    memcpy(stored.word, &words, sizeof(bytes));
    return stored;
  }
  /// Of 32 rows of two quads, eight numbers of 16 bits: lane 4g + q gets number g of rows 2q and
  /// 2q + 1 of the first eight, of the second eight, and so on.
  __device__ void columns(int lane, unsigned (&pair)[4]) const {
    auto const row = static_cast<unsigned>(__cvta_generic_to_shared(&quad[2 * lane]));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pair[0]), "=r"(pair[1]), "=r"(pair[2]), "=r"(pair[3])
                 : "r"(row)
                 : "memory");
  }
  __device__ float number(int i, int which) const {
    return to_number(reinterpret_cast<T const*>(&quad[i])[which]);
  }
};

/// The words that begin `shift` bytes, a multiple of an element of T, behind those that cover them.
template <class T, int Words, int Covering>
__device__ void shift_words(unsigned (&covering)[Covering], int shift, unsigned (&to)[Words]) {
#pragma unroll
  for (int far = (Covering - Words) / 2; far > 0; far /= 2) {
#pragma unroll
    for (int i = 0; i + far < Covering; ++i) {
      covering[i] = shift & 4 * far ? covering[i + far] : covering[i];
    }
  }
#pragma unroll
  for (int i = 0; i < Words; ++i) {
    to[i] =
        sizeof(T) == 4 ? covering[i] : __funnelshift_r(covering[i], covering[i + 1], shift % 4 * 8);
  }
}

/// Ask for a piece of a row of which `bytes` are left, zeros beyond. Where the row ends in it, its
/// elements are copied at once, not to read beyond.
template <class T, class Piece>
__device__ void request_piece(int bytes, Piece* to, void const* from) {
  constexpr int size = sizeof(T), all = sizeof(Piece);
  if (bytes <= 0 || bytes >= all) return request_if(bytes > 0, to, from);
#pragma unroll
  for (int i = 0; i < all / size; ++i) {
    reinterpret_cast<T*>(to)[i] = i * size < bytes ? static_cast<T const*>(from)[i] : T{};
  }
}

/// `Elements` at a time, which begin and end anywhere. Where they are next to each other they are
/// asked for by all pieces that cover them, as they are in memory; else, and where their row ends
/// in such a piece, they are loaded.
template <class T, int Elements, class Piece, int Slots>
struct loose_slots {
  static constexpr int words = Elements * sizeof(T) / 4, piece_words = sizeof(Piece) / 4;
  static constexpr int pieces = words / piece_words + 1;
  Piece piece[pieces][Slots];
  unsigned char shift[Slots];  // bytes from the first piece to the first element

  /// All elements of a row that goes on behind them as far as their last piece, or none. See
  /// wait_for_requests.
  __device__ void request_inside(int to, T const* first, bool is_wanted) {
    constexpr int size = sizeof(Piece), all = Elements * sizeof(T);
    int const before = static_cast<int>(reinterpret_cast<std::uintptr_t>(first) % size);
    auto const* const from = reinterpret_cast<unsigned char const*>(first) - before;
    shift[to] = static_cast<unsigned char>(before);
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      request_if(is_wanted && i * size < before + all, &piece[i][to], from + i * size);
    }
  }
  /// The same where a row has `count` more elements from `first` on; zeros beyond.
  __device__ void request(int to, T const* first, index_t stride, int count) {
    constexpr int size = sizeof(Piece), all = Elements * sizeof(T);
    int const before = static_cast<int>(reinterpret_cast<std::uintptr_t>(first) % size);
    int const last = (before + all + size - 1) / size * size;
    int const more = count < 2 * Elements ? count : 2 * Elements;
    bool const has_all = before + more * static_cast<int>(sizeof(T)) >= last;
    if (count <= 0 || (stride == 1 && has_all)) {
      request_inside(to, first, count > 0);
    } else {
      unsigned word[words];
      load_elements<Elements>(first, stride, count, word);
      shift[to] = 0;
#pragma unroll
      for (int i = 0; i + 1 < pieces; ++i) memcpy(&piece[i][to], &word[i * piece_words], size);
    }
  }
  __device__ void get(int from, unsigned (&to)[words]) const {
    unsigned covering[pieces * piece_words];
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      Piece const one = piece[i][from];
      memcpy(&covering[i * piece_words], &one, sizeof(Piece));
    }
    shift_words<T>(covering, shift[from], to);
  }
};

template <class T, int Threads>
struct loose_packet_slots
    : loose_slots<T, packet_elements, std::conditional_t<sizeof(T) == 2, uint4, uint2>, Threads> {
  using base =
      loose_slots<T, packet_elements, std::conditional_t<sizeof(T) == 2, uint4, uint2>, Threads>;
  __device__ void request(T const* first, index_t stride, int count) {
    base::request(static_cast<int>(threadIdx.x), first, stride, count);
  }
  __device__ stored_packet<T> get() const {
    stored_packet<T> packet;
    base::get(static_cast<int>(threadIdx.x), packet.word);
    return packet;
  }
};

template <class T, int Slots>
struct loose_quad_slots : loose_slots<T, 4, uint2, Slots> {
  using base = loose_slots<T, 4, uint2, Slots>;
  __device__ stored_quad<T> get(int from) const {
    stored_quad<T> quad;
    base::get(from, quad.word);
    return quad;
  }
  __device__ float number(int from, int which) const {
    int const byte = base::shift[from] + which * static_cast<int>(sizeof(T));
    auto const* const covering =
        reinterpret_cast<unsigned char const*>(&base::piece[byte / 8][from]);
    return to_number(*reinterpret_cast<T const*>(covering + byte % 8));
  }
};

/// `Elements` neighbours in memory that begin anywhere, as the pieces that cover them.
template <class T, int Elements>
struct covered_row {
  static constexpr int pieces = Elements * sizeof(T) / 16 + 1;
  uint4 piece[pieces];

  /// Bytes from the first piece to the first element.
  __device__ static int before(T const* first) {
    return static_cast<int>(reinterpret_cast<std::uintptr_t>(first) % 16);
  }
  __device__ static uint4 const* first_piece(T const* first) {
    return reinterpret_cast<uint4 const*>(reinterpret_cast<unsigned char const*>(first) -
                                          before(first));
  }
  __device__ T get(int before, int i) const {
    auto const* const first = reinterpret_cast<unsigned char const*>(piece) + before;
    return reinterpret_cast<T const*>(first)[i];
  }
};

template <class T, int Threads, bool Packed>
using packet_slots_of =
    std::conditional_t<Packed, packet_slots<T, Threads>, loose_packet_slots<T, Threads>>;
template <class T, int Slots, bool Packed>
using quad_slots_of = std::conditional_t<Packed, quad_slots<T, Slots>, loose_quad_slots<T, Slots>>;

}  // namespace ssm::gpu::detail
