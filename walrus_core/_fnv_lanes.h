/* FNV-1a 64 of many payloads; a part of _checksum.h, which includes it.
 *
 * Four chains side by side run everywhere. From AVX2 on, groups of 32 payloads go through the kernels of
 * _fnv_grouped.h where that pays, payloads of about the same length together.
 */
#ifndef WALRUS_FNV_LANES_H
#define WALRUS_FNV_LANES_H

/* One of several payloads whose checksums are wanted; `state` is where it starts and what it becomes. */
typedef struct {
    const uint8_t *data;
    size_t length;
    uint64_t state;
} walrus_lane;

#define WALRUS_FNV_LANES 4
#define WALRUS_FNV_SINGLE_MIN 256 /* two payloads of this length are faster one after the other */

/* Four at a time: independent chains fill the multiplier that one chain leaves idle. A lane that has
 * come to its end takes the next job. When fewer than four are left, idle lanes repeat the first one's
 * bytes into states that nobody reads, which costs nothing. */
static void walrus_fnv_chains(walrus_lane *jobs, size_t count)
{
    walrus_lane *active[WALRUS_FNV_LANES];
    size_t next = 0, running = 0;

    for (;;) {
        while (running < WALRUS_FNV_LANES && next < count)
            active[running++] = &jobs[next++];
        if (running == 0)
            return;
        size_t common = active[0]->length;
        for (size_t lane = 1; lane < running; lane++)
            if (active[lane]->length < common)
                common = active[lane]->length;
        if (running == 1 || (running == 2 && common >= WALRUS_FNV_SINGLE_MIN)) {
            for (size_t lane = 0; lane < running; lane++)
                active[lane]->state = walrus_fnv(active[lane]->data, active[lane]->length, active[lane]->state);
            return;
        }
        const uint8_t *data0 = active[0]->data, *data1 = active[1]->data;
        const uint8_t *data2 = running > 2 ? active[2]->data : data0, *data3 = running > 3 ? active[3]->data : data0;
        uint64_t state0 = active[0]->state, state1 = active[1]->state;
        uint64_t state2 = running > 2 ? active[2]->state : 0, state3 = running > 3 ? active[3]->state : 0;
        for (size_t at = 0; at < common; at++) {
            state0 = (state0 ^ data0[at]) * WALRUS_FNV_PRIME;
            state1 = (state1 ^ data1[at]) * WALRUS_FNV_PRIME;
            state2 = (state2 ^ data2[at]) * WALRUS_FNV_PRIME;
            state3 = (state3 ^ data3[at]) * WALRUS_FNV_PRIME;
        }
        const uint64_t states[WALRUS_FNV_LANES] = {state0, state1, state2, state3};
        size_t kept = 0;
        for (size_t lane = 0; lane < running; lane++) {
            walrus_lane *job = active[lane];
            job->state = states[lane];
            job->data += common;
            job->length -= common;
            if (job->length)
                active[kept++] = job;
        }
        running = kept;
    }
}

#if WALRUS_X86

#define WALRUS_GROUPED_LANES 32
#define WALRUS_GROUPED_TILES 24 /* of 16 positions, after which the sums of a group are settled */

/* Powers of the prime for two positions that follow each other, as pairs of signed limbs of 16 bits. */
typedef struct {
    int32_t limbs[4];
} walrus_grouped_weight;

/* For P^384 and P^383, P^382 and P^381, ..., P^2 and P^1. Summed over all of them, |limb| * 255 is below
 * 0.8 * 2^31 in every limb: the sums of products fit into 32 bits whatever the payloads are. */
static walrus_grouped_weight walrus_grouped_weights[8 * WALRUS_GROUPED_TILES] __attribute__((aligned(64)));

static void walrus_grouped_setup(void)
{
    for (int place = 0; place < 16 * WALRUS_GROUPED_TILES; place++) {
        uint64_t power = walrus_sliced_powers[16 * WALRUS_GROUPED_TILES - place];
        for (int limb = 0; limb < 4; limb++) {
            const int16_t digit = (int16_t)(uint16_t)power;
            memcpy((uint8_t *)&walrus_grouped_weights[place / 2].limbs[limb] + 2 * (place % 2), &digit, 2);
            power = (power - (uint64_t)(int64_t)digit) >> 16;
        }
    }
}

/* Payloads that go through a kernel together. Lanes without a job of their own repeat the first one. */
typedef struct {
    const uint8_t *ends[WALRUS_GROUPED_LANES];
    size_t lengths[WALRUS_GROUPED_LANES];
    uint64_t states[WALRUS_GROUPED_LANES];
    uint16_t lows[WALRUS_GROUPED_LANES]; /* the low bytes to begin with */
    int32_t sums[4][WALRUS_GROUPED_LANES];
    size_t shortest;
    size_t tiles; /* of the longest payload, the first of them filled up with zeros in front */
} walrus_group;

/* Move the states over a chunk of tiles, whose sums are there; `left` tiles come after it. */
static void walrus_group_settle(walrus_group *group, size_t chunk, size_t left)
{
    for (int lane = 0; lane < WALRUS_GROUPED_LANES; lane++) {
        const size_t length = group->lengths[lane];
        const size_t bytes = length < 16 * left ? 0 : length - 16 * left;
        group->states[lane] = group->states[lane] * walrus_sliced_powers[bytes < 16 * chunk ? bytes : 16 * chunk] +
                              (uint64_t)group->sums[0][lane] + ((uint64_t)group->sums[1][lane] << 16) +
                              ((uint64_t)group->sums[2][lane] << 32) + ((uint64_t)group->sums[3][lane] << 48);
    }
}

#define WALRUS_GROUPED(name) walrus_grouped_##name
#define WALRUS_GROUPED_TARGET __attribute__((target("avx2")))
#define WALRUS_GROUPED_WIDE 0
#include "_fnv_grouped.h"

#if WALRUS_AVX512
#define WALRUS_GROUPED(name) walrus_grouped_wide_##name
#define WALRUS_GROUPED_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vnni")))
#define WALRUS_GROUPED_WIDE 1
#include "_fnv_grouped.h"
#endif

/* What a kernel costs, in the time that four chains need for one byte: a group, and each of its tiles.
 * A payload costs four chains as much as so many bytes more than it has. */
#define WALRUS_GROUPED_COST 800
#define WALRUS_GROUPED_TILE_COST 280
#define WALRUS_GROUPED_WIDE_TILE_COST 150
#define WALRUS_CHAINS_COST 8
#define WALRUS_GROUPED_MIN 8 /* fewer payloads than these never pay */

static void (*walrus_grouped_best)(walrus_group *) = NULL;
static uint64_t walrus_grouped_tile_cost;

/* Whether a kernel is faster than four chains over `count` payloads of `total` bytes. */
static inline int walrus_group_pays(uint64_t total, size_t count, size_t longest)
{
    const uint64_t tiles = ((uint64_t)longest + 15) / 16;
    return total + WALRUS_CHAINS_COST * count >= WALRUS_GROUPED_COST + tiles * walrus_grouped_tile_cost;
}

/* Sum up to a group of jobs. */
static void walrus_fnv_group(walrus_lane *const *jobs, size_t count)
{
    walrus_group group;
    size_t shortest = jobs[0]->length, longest = shortest;

    for (size_t lane = 0; lane < WALRUS_GROUPED_LANES; lane++) {
        const walrus_lane *job = jobs[lane < count ? lane : 0];
        const size_t length = job->length;
        group.ends[lane] = job->data + length;
        group.lengths[lane] = length;
        group.states[lane] = job->state;
        shortest = length < shortest ? length : shortest;
        longest = length > longest ? length : longest;
    }
    group.shortest = shortest;
    group.tiles = (longest + 15) / 16;
    for (size_t lane = 0; lane < WALRUS_GROUPED_LANES; lane++) {
        /* P has order 64 modulo 256: the low byte from which the zeros in front lead to that of the state. */
        const size_t back = (group.lengths[lane] - 16 * group.tiles) & 63;
        group.lows[lane] = (uint8_t)(group.states[lane] * walrus_sliced_powers[back]);
    }
    walrus_grouped_best(&group);
    for (size_t lane = 0; lane < count; lane++)
        jobs[lane]->state = group.states[lane];
}

#define WALRUS_WINDOW 256 /* jobs from which groups are made */
#define WALRUS_CLASSES 448

/* A number that is higher for longer payloads, and the same where the tiles are as many, or nearly. */
static inline size_t walrus_length_class(size_t length)
{
    const uint64_t tiles = ((uint64_t)length + 15) / 16;
    if (tiles < 32)
        return (size_t)tiles;
    const int exponent = 63 - __builtin_clzll(tiles); /* 5 and more */
    const size_t class = 16 * (size_t)(exponent - 3) + ((tiles >> (exponent - 4)) & 15);
    return class < WALRUS_CLASSES ? class : WALRUS_CLASSES - 1;
}

/* Write jobs to `order`, those of the highest class first. */
static void walrus_order_lanes(walrus_lane *jobs, size_t count, size_t lowest, size_t highest, walrus_lane **order)
{
    uint16_t places[WALRUS_CLASSES], place = 0;

    memset(places + lowest, 0, (highest - lowest + 1) * sizeof places[0]);
    for (size_t job = 0; job < count; job++)
        places[walrus_length_class(jobs[job].length)]++;
    for (size_t class = highest + 1; class-- > lowest;) {
        const uint16_t size = places[class];
        places[class] = place;
        place = (uint16_t)(place + size);
    }
    for (size_t job = 0; job < count; job++)
        order[places[walrus_length_class(jobs[job].length)]++] = &jobs[job];
}

/* Sum up to a window of jobs, in groups as far as that pays. */
__attribute__((noinline)) static void walrus_fnv_window(walrus_lane *jobs, size_t count, size_t shortest,
                                                        size_t longest)
{
    walrus_lane *order[WALRUS_WINDOW], rest[WALRUS_WINDOW];
    const size_t lowest = walrus_length_class(shortest), highest = walrus_length_class(longest);
    size_t left = 0, size = 0;
    uint64_t total = 0;

    if (lowest != highest)
        walrus_order_lanes(jobs, count, lowest, highest, order);
    else
        for (size_t job = 0; job < count; job++)
            order[job] = &jobs[job];
    for (size_t next = 0; next < count;) {
        while (size < WALRUS_GROUPED_LANES && next + size < count)
            total += order[next + size++]->length;
        if (walrus_group_pays(total, size, order[next]->length)) {
            walrus_fnv_group(order + next, size);
            next += size;
            total = size = 0;
        } else { /* the first one is too long for the others, or all are too few or too short */
            total -= order[next]->length;
            size--;
            rest[left] = *order[next];
            order[left++] = order[next++];
        }
    }
    walrus_fnv_chains(rest, left);
    for (size_t job = 0; job < left; job++)
        order[job]->state = rest[job].state;
}

#endif

/* Sum all jobs; data and length of a job are used up. */
static void walrus_fnv_lanes(walrus_lane *jobs, size_t count)
{
#if WALRUS_X86
    while (walrus_grouped_best && count >= WALRUS_GROUPED_MIN) {
        const size_t size = count < WALRUS_WINDOW ? count : WALRUS_WINDOW;
        const size_t most = size < WALRUS_GROUPED_LANES ? size : WALRUS_GROUPED_LANES;
        size_t shortest = jobs[0].length, longest = shortest;
        uint64_t total = 0;
        for (size_t job = 0; job < size; job++) {
            const size_t length = jobs[job].length;
            shortest = length < shortest ? length : shortest;
            longest = length > longest ? length : longest;
            total += length;
        }
        /* Where it would not pay for payloads that are all as long as the mean, ordering is not worth it. */
        if (walrus_group_pays(total / size * most, most, (size_t)(total / size)))
            walrus_fnv_window(jobs, size, shortest, longest);
        else
            walrus_fnv_chains(jobs, size);
        jobs += size;
        count -= size;
    }
#endif
    walrus_fnv_chains(jobs, count);
}

#endif
