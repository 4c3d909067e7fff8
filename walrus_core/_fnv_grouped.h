/* FNV-1a 64 of a group of payloads side by side: a template that _fnv_lanes.h includes once per processor
 * tier.
 *
 * Parameters: WALRUS_GROUPED(name) gives the tier's names, WALRUS_GROUPED_TARGET the attribute of its
 * functions, WALRUS_GROUPED_WIDE whether vectors have 512 bits and multiply-add is one instruction.
 *
 * Why this is exact: see _fnv_sliced.h. There the positions of one payload go side by side; here it is
 * the payloads, each in a lane of its own, and the positions go one after the other:
 *
 *     s(i + 1) = x(i) * 0xB3 mod 256, where x(i) = s(i) ^ b(i)
 *     H(n) = P^n * H(0) + sum of (x(i) - s(i)) * P^(n - i)
 *
 * A tile is 16 positions of all lanes. It goes through: transposition, which leaves words of two
 * positions in every lane; two steps of s a word; the differences x - s as pairs of 16 bits; and their
 * products with powers of P, limb by limb, which is put off by one vector of lanes, so that it fills
 * the time in which s(i + 1) waits for s(i).
 *
 * Tiles are counted from the ends of the payloads. What stands before the beginning of a payload is
 * taken as zeros, which change nothing but s; that is corrected where s begins.
 */

#define WALRUS_INLINE WALRUS_GROUPED_TARGET static inline __attribute__((always_inline))

#if WALRUS_GROUPED_WIDE
#define VECTOR __m512i
#define BLOCKS 4 /* of 128 bits, in each of which 8 lanes are transposed */
#define OP(name) _mm512_##name
#define LOAD(from) _mm512_loadu_si512((const void *)(from))
#define STORE(to, value) _mm512_storeu_si512((void *)(to), value)
#define ADD_PRODUCTS(sum, values, weights) _mm512_dpwssd_epi32(sum, values, weights)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define VECTOR __m256i
#define BLOCKS 2
#define OP(name) _mm256_##name
#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))
#define STORE(to, value) _mm256_storeu_si256((__m256i *)(to), value)
#define ADD_PRODUCTS(sum, values, weights) _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights))
#define UNROLL _Pragma("GCC unroll 1")
#endif
#define LANES (8 * BLOCKS) /* of a vector */
#define VECTORS (WALRUS_GROUPED_LANES / LANES)

/* The 16 bytes that begin `back` bytes before the ends of payloads: those of a row, one for each block. */
WALRUS_INLINE VECTOR WALRUS_GROUPED(load)(const uint8_t *const *ends, ptrdiff_t back)
{
#define PIECE(block) _mm_loadu_si128((const __m128i *)(ends[4 * (block)] - back))
#if WALRUS_GROUPED_WIDE
    const __m512i one = _mm512_inserti32x4(_mm512_castsi128_si512(PIECE(0)), PIECE(1), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(one, PIECE(2), 2), PIECE(3), 3);
#else
    return _mm256_inserti128_si256(_mm256_castsi128_si256(PIECE(0)), PIECE(1), 1);
#endif
#undef PIECE
}

/* One round of a transposition: vectors 4 apart are interleaved by words. */
WALRUS_INLINE void WALRUS_GROUPED(interleave)(const VECTOR from[8], VECTOR to[8])
{
    for (int number = 0; number < 4; number++) {
        to[2 * number] = OP(unpacklo_epi16)(from[number], from[number + 4]);
        to[2 * number + 1] = OP(unpackhi_epi16)(from[number], from[number + 4]);
    }
}

/* Words of two positions from the lanes of one vector, which are the payloads 4 b to 4 b + 3 and
 * LANES / 2 + 4 b to LANES / 2 + 4 b + 3 in block b. */
WALRUS_INLINE void WALRUS_GROUPED(transpose)(const uint8_t *const *ends, ptrdiff_t back, VECTOR words[8])
{
    VECTOR one[8], other[8];
    for (int row = 0; row < 4; row++) {
        one[row] = WALRUS_GROUPED(load)(ends + row, back);
        one[row + 4] = WALRUS_GROUPED(load)(ends + LANES / 2 + row, back);
    }
    WALRUS_GROUPED(interleave)(one, other);
    WALRUS_GROUPED(interleave)(other, one);
    WALRUS_GROUPED(interleave)(one, words);
}

/* A tile of one vector of lanes: its words, and the differences x - s of the lanes that make the front
 * and the back half of it; before they are written, those of the vector before are read. */
typedef struct {
    VECTOR words[8];
    VECTOR front[8];
    VECTOR back[8];
} WALRUS_GROUPED(tile);

/* Limb by limb, the sums of the front half and then those of the back half. */
typedef struct {
    VECTOR front0, front1, front2, front3;
    VECTOR back0, back1, back2, back3;
} WALRUS_GROUPED(sums);

/* Add the products of the differences at two positions. */
WALRUS_INLINE void WALRUS_GROUPED(add)(WALRUS_GROUPED(sums) *sums, VECTOR front, VECTOR back,
                                       const walrus_grouped_weight *weight)
{
#define LIMB(limb)                                                                                                     \
    do {                                                                                                               \
        const VECTOR factor = OP(set1_epi32)(weight->limbs[limb]);                                                     \
        sums->front##limb = ADD_PRODUCTS(sums->front##limb, front, factor);                                            \
        sums->back##limb = ADD_PRODUCTS(sums->back##limb, back, factor);                                               \
    } while (0)
    LIMB(0);
    LIMB(1);
    LIMB(2);
    LIMB(3);
#undef LIMB
}

/* Go over a tile from s, return s behind it; meanwhile add what the tile before has left. */
WALRUS_INLINE VECTOR WALRUS_GROUPED(step)(WALRUS_GROUPED(tile) *tile, VECTOR s, WALRUS_GROUPED(sums) *before,
                                          const walrus_grouped_weight *weights)
{
    const VECTOR factor = OP(set1_epi16)((short)0xB300), high = OP(set1_epi16)((short)0xFF00);
    const VECTOR low = OP(set1_epi16)(0x00FF), difference = OP(set1_epi16)((short)0xFF01);
    WALRUS_GROUPED(sums) sums = *before;
    UNROLL for (int pair = 0; pair < 8; pair++)
    {
        const VECTOR word = tile->words[pair], front = tile->front[pair], back = tile->back[pair];
        /* s of the second position, in the high byte; whatever stands in that of s falls out. */
        const VECTOR second = OP(mullo_epi16)(s ^ word, factor);
        const VECTOR both = (s & low) | second, x = both ^ word;
        s = OP(mulhi_epu16)(second ^ (word & high), factor);
        tile->front[pair] = OP(maddubs_epi16)(OP(unpacklo_epi8)(x, both), difference);
        tile->back[pair] = OP(maddubs_epi16)(OP(unpackhi_epi8)(x, both), difference);
        WALRUS_GROUPED(add)(&sums, front, back, &weights[pair]);
    }
    *before = sums;
    return s;
}

/* Put into `piece` the 16 bytes that begin `back` bytes before `end`, zeros for those before the payload. */
WALRUS_INLINE void WALRUS_GROUPED(fill)(uint8_t *piece, const uint8_t *end, size_t length, size_t back)
{
    if (length >= back) {
        _mm_store_si128((__m128i *)piece, _mm_loadu_si128((const __m128i *)(end - back)));
    } else if (length >= 16 && length + 16 > back) {
        const __m128i slide = _mm_loadu_si128((const __m128i *)(walrus_sliced_slide + 16 - (back - length)));
        _mm_store_si128((__m128i *)piece, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(end - length)), slide));
    } else {
        _mm_store_si128((__m128i *)piece, _mm_setzero_si128());
        if (length + 16 > back)
            for (size_t at = 0; at < length; at++)
                piece[16 - length + at] = end[at - length];
    }
}

/* Sum the payloads of a group, chunk by chunk. */
WALRUS_GROUPED_TARGET static void WALRUS_GROUPED(sum)(walrus_group *group)
{
    uint8_t pieces[WALRUS_GROUPED_LANES][16] __attribute__((aligned(64)));
    const uint8_t *filled[WALRUS_GROUPED_LANES];
    WALRUS_GROUPED(tile) tile;
    VECTOR s[VECTORS];

    for (int four = 0; four < WALRUS_GROUPED_LANES / 4; four++) { /* in the order of transpose() */
        const int vector = four / (2 * BLOCKS), half = four / BLOCKS % 2, block = four % BLOCKS;
        memcpy((uint16_t *)&s[vector] + 8 * block + 4 * half, group->lows + 4 * four, 8);
    }
    for (int lane = 0; lane < WALRUS_GROUPED_LANES; lane++)
        filled[lane] = pieces[lane];
    for (size_t tiles = group->tiles; tiles;) {
        const size_t chunk = tiles < WALRUS_GROUPED_TILES ? tiles : WALRUS_GROUPED_TILES;
        const walrus_grouped_weight *weights = walrus_grouped_weights + 8 * (WALRUS_GROUPED_TILES - chunk);
        const walrus_grouped_weight *before = weights;
        const VECTOR zero = OP(set1_epi32)(0);
        WALRUS_GROUPED(sums) sums[VECTORS];
        for (int vector = 0; vector < VECTORS; vector++)
            sums[vector] = (WALRUS_GROUPED(sums)){zero, zero, zero, zero, zero, zero, zero, zero};
        for (int pair = 0; pair < 8; pair++)
            tile.front[pair] = tile.back[pair] = zero;
        for (size_t number = 0; number < chunk; number++) {
            const size_t distance = 16 * (tiles - number);
            const uint8_t *const *from = group->ends;
            ptrdiff_t back = (ptrdiff_t)distance;
            if (distance > group->shortest) {
                for (int lane = 0; lane < WALRUS_GROUPED_LANES; lane++)
                    WALRUS_GROUPED(fill)(pieces[lane], group->ends[lane], group->lengths[lane], distance);
                from = filled;
                back = 0;
            }
            for (int vector = 0; vector < VECTORS; vector++) {
                WALRUS_GROUPED(transpose)(from + LANES * vector, back, tile.words);
                s[vector] = WALRUS_GROUPED(step)(&tile, s[vector], &sums[vector ? vector - 1 : VECTORS - 1], before);
                before = weights + 8 * number;
            }
        }
        for (int pair = 0; pair < 8; pair++)
            WALRUS_GROUPED(add)(&sums[VECTORS - 1], tile.front[pair], tile.back[pair], &before[pair]);
        for (int vector = 0; vector < VECTORS; vector++) {
            const VECTOR *limbs = (const VECTOR *)&sums[vector];
            for (int limb = 0; limb < 4; limb++) {
                STORE(group->sums[limb] + LANES * vector, limbs[limb]);
                STORE(group->sums[limb] + LANES * vector + LANES / 2, limbs[limb + 4]);
            }
        }
        tiles -= chunk;
        walrus_group_settle(group, chunk, tiles);
    }
}

#undef WALRUS_INLINE
#undef VECTOR
#undef BLOCKS
#undef OP
#undef LOAD
#undef STORE
#undef ADD_PRODUCTS
#undef UNROLL
#undef LANES
#undef VECTORS
#undef WALRUS_GROUPED
#undef WALRUS_GROUPED_TARGET
#undef WALRUS_GROUPED_WIDE
