/* Frames in C memory: layout, encode, verify, walk. No Python in here: all of it may run without the GIL.
 *
 * The pure twin (_pure/frames.py) says what every step means and docs/format.md, "Frame", how the bytes
 * lie; _hot_c.pyx turns buffers and objects into what is declared here.
 *
 * Invariants: no length is used before its header check has passed, nothing outside [data, data + size)
 * is read, and positions and sizes are 64 bits wide, so that no sum of them and a 32-bit length can
 * overflow.
 */
#ifndef WALRUS_FRAME_H
#define WALRUS_FRAME_H

#include "_checksum.h"

#define WALRUS_HEADER_SIZE 32
#define WALRUS_ALIGN 8
#define WALRUS_REST_SIZE 24 /* of a header, the bytes behind its checksum */
#define WALRUS_LENGTH_MAX UINT64_C(0xFFFFFFFF)
#define WALRUS_KIND 1
#define WALRUS_FIRST 1
#define WALRUS_FNV1A64 1

/* Ways a reading ends; WALRUS_GOES_ON never leaves this header. */
#define WALRUS_DONE 0
#define WALRUS_SHORT 1
#define WALRUS_BAD_HEADER 2
#define WALRUS_BAD_PAYLOAD 3
#define WALRUS_GOES_ON 4

/* Frames that are verified side by side: up to so many, and from 4 on no more than so many bytes, to
 * stay in the cache. Kernels take up to 32 payloads, and those of like lengths are sought among these. */
#define WALRUS_GROUP 128
#define WALRUS_PREFETCH_AHEAD 4096
#define WALRUS_PREFETCH_MAX 1024 /* of a larger frame the processor sees by itself where it goes */
#define WALRUS_GROUP_BYTES 262144

/* The check of a header; `word` is the u32 of kind, flags and batch_remaining. */
static inline uint32_t walrus_check(uint64_t key, uint32_t length, uint32_t word, uint32_t index, uint64_t timestamp)
{
    uint64_t value = walrus_mix64(key ^ (length | (uint64_t)word << 32));
    value = walrus_mix64(value ^ timestamp);
    return (uint32_t)(walrus_mix64(value + index) >> 32);
}

/* The size of a frame; `length` is below 2^63. */
static inline uint64_t walrus_frame_size(uint64_t length)
{
    return (length + WALRUS_HEADER_SIZE + WALRUS_ALIGN - 1) & ~(uint64_t)(WALRUS_ALIGN - 1);
}

/* --- the checksum of a frame, in three steps: begin, go on over header rest and payload, end ---- */

static inline uint64_t walrus_sum_begin(uint64_t key, int algorithm)
{
    return algorithm == WALRUS_FNV1A64 ? key : 0;
}

static inline uint64_t walrus_sum_on(uint64_t state, int algorithm, const uint8_t *data, size_t length)
{
    return algorithm == WALRUS_FNV1A64 ? walrus_fnv(data, length, state)
                                       : walrus_crc32c(data, length, (uint32_t)state);
}

static inline void walrus_sum_lanes(walrus_lane *lanes, size_t count, int algorithm)
{
    if (algorithm == WALRUS_FNV1A64)
        walrus_fnv_lanes(lanes, count);
    else
        walrus_crc_lanes(lanes, count);
}

static inline uint64_t walrus_sum_end(uint64_t state, uint64_t key, int algorithm, uint32_t index)
{
    if (algorithm == WALRUS_FNV1A64)
        return state;
    return (walrus_mix64(key + index) & ~WALRUS_LENGTH_MAX) | state;
}

/* --- encode ----------------------------------------------------------------------------------- */

/* Write bytes 8 to 31 of a header. */
static inline void walrus_put_rest(uint8_t *head, uint64_t key, uint32_t length, uint8_t flags, uint16_t remaining,
                                   uint32_t index, uint64_t timestamp)
{
    const uint32_t word = WALRUS_KIND | (uint32_t)flags << 8 | (uint32_t)remaining << 16;
    walrus_store64(head + 8, length | (uint64_t)walrus_check(key, length, word, index, timestamp) << 32);
    walrus_store64(head + 16, word | (uint64_t)index << 32);
    walrus_store64(head + 24, timestamp);
}

/* Write payload and padding behind a header; return the place behind them. They may overlap. */
static inline uint8_t *walrus_put_payload(uint8_t *head, const uint8_t *payload, uint32_t length)
{
    uint8_t *end = head + walrus_frame_size(length);
    const unsigned padding = -length & (WALRUS_ALIGN - 1);
    memmove(head + WALRUS_HEADER_SIZE, payload, length);
    if (padding) /* the last word of the frame, which has bytes of the payload too: a call would cost more */
        walrus_store64(end - 8, walrus_load64(end - 8) & UINT64_MAX >> 8 * padding);
    return end;
}

/* Write the header of a payload that stands elsewhere and cannot change. */
static void walrus_put_header(uint8_t *head, uint64_t key, int algorithm, const uint8_t *payload, uint32_t length,
                              uint8_t flags, uint16_t remaining, uint32_t index, uint64_t timestamp)
{
    walrus_put_rest(head, key, length, flags, remaining, index, timestamp);
    uint64_t state = walrus_sum_on(walrus_sum_begin(key, algorithm), algorithm, head + 8, WALRUS_REST_SIZE);
    state = walrus_sum_on(state, algorithm, payload, length);
    walrus_store64(head, walrus_sum_end(state, key, algorithm, index));
}

/* Write the frame of a batch of one: payload and padding, then the header, its checksum last. That is
 * the checksum of the copy in `target`, whatever happens to `payload` meanwhile. */
static void walrus_put_frame(uint8_t *target, uint64_t key, int algorithm, const uint8_t *payload, uint32_t length,
                             uint32_t index, uint64_t timestamp)
{
    walrus_put_payload(target, payload, length);
    walrus_put_rest(target, key, length, WALRUS_FIRST, 0, index, timestamp);
    const uint64_t state = walrus_sum_on(walrus_sum_begin(key, algorithm), algorithm, target + 8,
                                         WALRUS_REST_SIZE + (size_t)length);
    walrus_store64(target, walrus_sum_end(state, key, algorithm, index));
}

/* What the frames of a run have in common, and the checksums that are left for the lanes. */
typedef struct {
    uint64_t key;
    uint64_t timestamp;
    int algorithm;
    uint32_t index;     /* of the first frame */
    size_t count;       /* of frames put so far */
    walrus_lane *lanes; /* one for each, and where its checksum goes */
    uint8_t **heads;
} walrus_batch;

/* Write a frame but for its checksum; with `apart` neither payload nor padding, which stand elsewhere.
 * Return the place behind what was written. */
static uint8_t *walrus_put_unsummed(walrus_batch *batch, uint8_t *target, const uint8_t *payload, uint32_t length,
                                    int apart, uint8_t flags, uint16_t remaining)
{
    walrus_lane *lane = &batch->lanes[batch->count];
    const uint32_t index = batch->index + (uint32_t)batch->count;
    batch->heads[batch->count++] = target;
    walrus_put_rest(target, batch->key, length, flags, remaining, index, batch->timestamp);
    lane->state = walrus_sum_begin(batch->key, batch->algorithm);
    if (apart) {
        lane->state = walrus_sum_on(lane->state, batch->algorithm, target + 8, WALRUS_REST_SIZE);
        lane->data = payload;
        lane->length = length;
        return target + WALRUS_HEADER_SIZE;
    }
    lane->data = target + 8;
    lane->length = WALRUS_REST_SIZE + (size_t)length;
    return walrus_put_payload(target, payload, length);
}

static void walrus_sum_batch(walrus_batch *batch)
{
    walrus_sum_lanes(batch->lanes, batch->count, batch->algorithm);
    for (size_t place = 0; place < batch->count; place++)
        walrus_store64(batch->heads[place], walrus_sum_end(batch->lanes[place].state, batch->key, batch->algorithm,
                                                           batch->index + (uint32_t)place));
}

/* --- decode ----------------------------------------------------------------------------------- */

/* The bytes of a header. */
typedef struct {
    uint8_t bytes[WALRUS_HEADER_SIZE];
} walrus_head;

/* A sound header, and where it stands. */
typedef struct {
    int64_t at;
    uint64_t checksum;
    uint64_t timestamp;
    uint32_t length;
    uint32_t index;
    uint16_t remaining;
    uint8_t first;
} walrus_frame;

/* A buffer, the place and index of the next frame, and why reading stopped there. */
typedef struct {
    const uint8_t *data;
    int64_t size;
    uint64_t key;
    int algorithm;
    int64_t at; /* never negative */
    int64_t index;
    int64_t limit_index;
    int64_t budget; /* payload bytes beyond which no frame but the first is taken */
    int64_t taken;  /* frames, and */
    int64_t total;  /* their payload bytes so far */
    int batches;    /* frames must form batches, of which */
    int64_t remaining; /* so many entries must still come */
    int status;
    uint64_t need;
} walrus_reader;

/* The fields of a header that is known to be sound. */
static inline uint32_t walrus_length_of(const uint8_t *head) { return (uint32_t)walrus_load64(head + 8); }

static inline uint64_t walrus_timestamp_of(const uint8_t *head) { return walrus_load64(head + 24); }

/* Read the header in `head`; 0 where it is not sound. */
static inline int walrus_parse(const uint8_t *head, uint64_t key, walrus_frame *frame)
{
    const uint64_t second = walrus_load64(head + 8), third = walrus_load64(head + 16);
    const uint64_t timestamp = walrus_load64(head + 24);
    const uint32_t length = (uint32_t)second, word = (uint32_t)third, index = (uint32_t)(third >> 32);
    if ((word & 0xFF) == 0 || (uint32_t)(second >> 32) != walrus_check(key, length, word, index, timestamp))
        return 0;
    frame->checksum = walrus_load64(head);
    frame->timestamp = timestamp;
    frame->length = length;
    frame->index = index;
    frame->remaining = (uint16_t)(word >> 16);
    frame->first = (word >> 8) & WALRUS_FIRST;
    return 1;
}

static inline int walrus_stop(walrus_reader *reader, int status, uint64_t need)
{
    reader->status = status;
    reader->need = need;
    return 0;
}

/* Copy the header at the reader's place to `head` and read it from there, since the buffer may be
 * memory that others can change; 0: stopped. */
static inline int walrus_next_header(walrus_reader *reader, walrus_head *head, walrus_frame *frame)
{
    if (reader->size - reader->at < WALRUS_HEADER_SIZE)
        return walrus_stop(reader, WALRUS_SHORT, WALRUS_HEADER_SIZE);
    memcpy(head->bytes, reader->data + reader->at, WALRUS_HEADER_SIZE);
    if (!walrus_parse(head->bytes, reader->key, frame) || (int64_t)frame->index != reader->index)
        return walrus_stop(reader, WALRUS_BAD_HEADER, 0);
    frame->at = reader->at;
    return 1;
}

/* Step over the frame, if it may be taken and lies in the buffer; 0: stopped. */
static inline int walrus_take(walrus_reader *reader, const walrus_frame *frame)
{
    const uint64_t size = walrus_frame_size(frame->length);
    if (reader->batches && (frame->first != (reader->remaining == 0) ||
                            (reader->remaining && frame->remaining != reader->remaining - 1)))
        return walrus_stop(reader, WALRUS_BAD_HEADER, 0);
    if (reader->taken && frame->length > reader->budget - reader->total)
        return walrus_stop(reader, WALRUS_DONE, 0);
    if (size > (uint64_t)(reader->size - reader->at))
        return walrus_stop(reader, WALRUS_SHORT, size);
    reader->at += (int64_t)size;
    reader->index += 1;
    reader->taken += 1;
    reader->total += frame->length;
    reader->remaining = frame->remaining;
    return 1;
}

/* Ask for the bytes that come AHEAD of the frame at `start`, which ends at reader->at: the place of a
 * header is known only from the one before, so the processor would wait for each of them. */
static inline void walrus_prefetch(const walrus_reader *reader, int64_t start)
{
#if defined(__GNUC__)
    int64_t end = reader->at + WALRUS_PREFETCH_AHEAD;
    if (end > reader->size)
        return;
    if (end - start > WALRUS_PREFETCH_AHEAD + WALRUS_PREFETCH_MAX)
        end = start + WALRUS_PREFETCH_AHEAD + WALRUS_PREFETCH_MAX;
    for (int64_t at = start + WALRUS_PREFETCH_AHEAD; at < end; at += 64)
        __builtin_prefetch(reader->data + at);
#else
    (void)reader, (void)start;
#endif
}

/* Take up to `room` frames, at most a group, by their headers alone; their checksums come next.
 * Returns how many. The status tells why there are no more, WALRUS_GOES_ON where there may be. */
static int walrus_gather(walrus_reader *reader, walrus_frame *frames, walrus_head *heads, int64_t room)
{
    const int64_t start = reader->at;
    int count = 0;
    walrus_stop(reader, WALRUS_GOES_ON, 0);
    while (count < room && count < WALRUS_GROUP) {
        if (reader->index >= reader->limit_index) {
            walrus_stop(reader, WALRUS_DONE, 0);
            break;
        }
        const int64_t before = reader->at;
        if (!walrus_next_header(reader, &heads[count], &frames[count]) || !walrus_take(reader, &frames[count]))
            break;
        walrus_prefetch(reader, before);
        count++;
        if (count >= WALRUS_FNV_LANES && reader->at - start >= WALRUS_GROUP_BYTES)
            break;
    }
    return count;
}

/* How many of the frames have their checksum in their lane; the reader steps back to the first that
 * has another. */
static int walrus_count_sound(walrus_reader *reader, const walrus_frame *frames, const walrus_lane *lanes, int count)
{
    for (int place = 0; place < count; place++) {
        const walrus_frame *frame = &frames[place];
        if (walrus_sum_end(lanes[place].state, reader->key, reader->algorithm, frame->index) != frame->checksum) {
            reader->at = frame->at;
            reader->index = frame->index;
            walrus_stop(reader, WALRUS_BAD_PAYLOAD, walrus_frame_size(frame->length));
            return place;
        }
    }
    return count;
}

/* Verify frames whose payloads were copied out: `lanes` has the copies. Returns as count_sound. */
static int walrus_verify_copies(walrus_reader *reader, const walrus_frame *frames, const walrus_head *heads,
                                walrus_lane *lanes, int count)
{
    walrus_lane rests[WALRUS_GROUP];
    for (int place = 0; place < count; place++) {
        rests[place].data = heads[place].bytes + 8;
        rests[place].length = WALRUS_REST_SIZE;
        rests[place].state = walrus_sum_begin(reader->key, reader->algorithm);
    }
    walrus_sum_lanes(rests, (size_t)count, reader->algorithm);
    for (int place = 0; place < count; place++)
        lanes[place].state = rests[place].state;
    walrus_sum_lanes(lanes, (size_t)count, reader->algorithm);
    return walrus_count_sound(reader, frames, lanes, count);
}

/* Verify frames where they stand, in memory that nobody changes. Returns as count_sound. */
static int walrus_verify_there(walrus_reader *reader, const walrus_frame *frames, walrus_lane *lanes, int count)
{
    for (int place = 0; place < count; place++) {
        lanes[place].data = reader->data + frames[place].at + 8;
        lanes[place].length = WALRUS_REST_SIZE + (size_t)frames[place].length;
        lanes[place].state = walrus_sum_begin(reader->key, reader->algorithm);
    }
    walrus_sum_lanes(lanes, (size_t)count, reader->algorithm);
    return walrus_count_sound(reader, frames, lanes, count);
}

/* Verify one frame whose header and payload stand apart, in memory that nobody changes; 0: stopped. */
static int walrus_verify_apart(walrus_reader *reader, const walrus_frame *frame, const uint8_t *head,
                               const uint8_t *payload)
{
    walrus_lane lane = {.state = walrus_sum_begin(reader->key, reader->algorithm)};
    lane.state = walrus_sum_on(lane.state, reader->algorithm, head + 8, WALRUS_REST_SIZE);
    lane.state = walrus_sum_on(lane.state, reader->algorithm, payload, frame->length);
    return walrus_count_sound(reader, frame, &lane, 1);
}

/* Step by headers alone until the limit. */
static void walrus_seek(walrus_reader *reader)
{
    walrus_head head;
    walrus_frame frame;
    while (reader->index < reader->limit_index)
        if (!walrus_next_header(reader, &head, &frame) || !walrus_take(reader, &frame))
            return;
    walrus_stop(reader, WALRUS_DONE, 0);
}

/* Find a sound header with index in [index_min, limit_index) whose frame lies in the buffer; 0: none. */
static int walrus_find(walrus_reader *reader, int64_t index_min, walrus_frame *frame)
{
    for (; reader->size - reader->at >= WALRUS_HEADER_SIZE; reader->at += WALRUS_ALIGN) {
        const uint8_t *head = reader->data + reader->at;
        if (head[16] != 0 && walrus_parse(head, reader->key, frame) && frame->index >= index_min &&
            frame->index < reader->limit_index &&
            walrus_frame_size(frame->length) <= (uint64_t)(reader->size - reader->at))
            return 1;
    }
    return 0;
}

/* Of the frames that a walk found sound. */
typedef struct {
    int64_t remaining;
    uint64_t payload_bytes;
    uint64_t low;
    uint64_t high;
} walrus_totals;

static void walrus_walk(walrus_reader *reader, walrus_totals *totals)
{
    walrus_frame frames[WALRUS_GROUP];
    walrus_head heads[WALRUS_GROUP];
    walrus_lane lanes[WALRUS_GROUP];
    do {
        const int count = walrus_gather(reader, frames, heads, WALRUS_GROUP);
        const int sound = walrus_verify_there(reader, frames, lanes, count);
        for (int place = 0; place < sound; place++) {
            totals->remaining = frames[place].remaining;
            totals->payload_bytes += frames[place].length;
            if (frames[place].timestamp < totals->low)
                totals->low = frames[place].timestamp;
            if (frames[place].timestamp > totals->high)
                totals->high = frames[place].timestamp;
        }
    } while (reader->status == WALRUS_GOES_ON);
}

#endif
