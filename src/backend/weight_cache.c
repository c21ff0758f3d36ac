/* Packed weights, shared by sessions: a hash map, reference counts and a list by last use.
 *
 * Pictures use the weights of a model in the same order again and again. When not all of them fit
 * within the limit, dropping the least recently used one would drop just the one that is needed
 * next, and nothing would ever be found again. So what no longer fits passes through: it is dropped
 * after its use, and a part of the weights stays. Only entries which have not been used for much
 * longer than others give way to it: another direction's, or another gamma's.
 *
 * Keeping what is used only once costs more than it is worth: new pages, which the system must
 * clear. So a cache can be told to keep what is asked for again (the doorkeeper of TinyLFU); one
 * picture's weights then pass through the same few blocks.
 *
 * Packing runs outside the lock; who wants an entry that another thread is packing waits for it. An
 * entry whose packing fails disappears, and each of those who waited tries for itself, so that each
 * gets an error of its own. */
#include "backend/backend.h"

#include <pthread.h>
#include <string.h>

typedef struct entry entry;
struct entry {
    const weight_expression *weight;
    uint64_t format;
    float scalars[SCALAR_COUNT]; /* those it does not depend on are 0 */
    void *block;   /* entry pointer in the first bytes, packed form from BLOCK_HEADER */
    size_t bytes;  /* of the block */
    uint64_t used; /* the cache's count of uses at the last one */
    unsigned references;
    bool ready;
    bool kept;                        /* after its use, as far as the limit allows */
    entry *next;                      /* in its bucket */
    entry *less_recent, *more_recent; /* of the entries that are not in use */
};

/* Keeps the packed form aligned. */
#define BLOCK_HEADER 64

/* Blocks that became free, oldest first: memory that is in use already is cheaper than new pages,
 * which the system must clear. One serves a weight of just its size, or any smaller one that is not
 * kept. There may be more of them as long as the limit leaves room. */
#define SPARE_BLOCKS     16
#define SPARE_BYTES      ((size_t)64 << 20)
#define SPARE_BYTES_MOST ((size_t)128 << 20)

/* A bit for the hash of what was asked for. Cleared when half of the bits are set: then too much
 * that is new would pass for known. */
#define SEEN_BITS 16384

typedef struct spare_block {
    void *block;
    size_t bytes;
} spare_block;

struct weight_cache {
    pthread_mutex_t mutex;
    pthread_cond_t packed; /* some entry became ready or disappeared */
    entry **buckets;
    size_t bucket_count, entry_count;
    size_t limit, bytes;
    spare_block spares[SPARE_BLOCKS];
    size_t spare_count, spare_bytes;   /* not part of `bytes` */
    entry *least_recent, *most_recent; /* of the entries that are not in use */
    uint64_t uses;                     /* acquired so far */
    uint64_t interval; /* about the most uses between two of the same entry; 0: not known */
    bool was_full;     /* something did not fit */
    bool release_sources;
    bool keep_repeated; /* only what is asked for again */
    uint64_t seen[SEEN_BITS / 64];
    size_t seen_count;
};

onestep_status weight_cache_create(weight_cache **result, size_t limit, onestep_error *error)
{
    *result = NULL;
    weight_cache *cache = memory_allocate(1, sizeof *cache, error);
    if (!cache) {
        return ONESTEP_ERROR_MEMORY;
    }
    cache->bucket_count = 256;
    cache->buckets = memory_allocate(cache->bucket_count, sizeof(entry *), error);
    if (!cache->buckets) {
        goto fail;
    }
    if (pthread_mutex_init(&cache->mutex, NULL) != 0) {
        error_set(error, ONESTEP_ERROR_MEMORY, "weight cache: no memory for a lock");
        goto fail;
    }
    if (pthread_cond_init(&cache->packed, NULL) != 0) {
        pthread_mutex_destroy(&cache->mutex);
        error_set(error, ONESTEP_ERROR_MEMORY, "weight cache: no memory for a lock");
        goto fail;
    }
    cache->limit = limit;
    *result = cache;
    return ONESTEP_OK;
fail:
    memory_free(cache->buckets);
    memory_free(cache);
    return ONESTEP_ERROR_MEMORY;
}

static void spare_remove(weight_cache *cache, size_t index)
{
    cache->spare_bytes -= cache->spares[index].bytes;
    cache->spare_count--;
    memmove(cache->spares + index, cache->spares + index + 1,
            (cache->spare_count - index) * sizeof *cache->spares);
}

static void spare_drop_oldest(weight_cache *cache)
{
    memory_free_aligned(cache->spares[0].block, cache->spares[0].bytes);
    spare_remove(cache, 0);
}

static size_t spare_most(const weight_cache *cache)
{
    const size_t room = cache->limit > cache->bytes ? cache->limit - cache->bytes : 0;
    return size_maximum(SPARE_BYTES, size_minimum(room, SPARE_BYTES_MOST));
}

/* Drops the oldest ones until no more than `most` bytes remain. */
static void spare_shrink(weight_cache *cache, size_t most)
{
    while (cache->spare_bytes > most) {
        spare_drop_oldest(cache);
    }
}

static void spare_add(weight_cache *cache, void *block, size_t bytes)
{
    const size_t most = spare_most(cache);
    if (bytes > most) {
        memory_free_aligned(block, bytes);
        return;
    }
    spare_shrink(cache, most - bytes);
    if (cache->spare_count == SPARE_BLOCKS) {
        spare_drop_oldest(cache);
    }
    cache->spares[cache->spare_count++] = (spare_block){block, bytes};
    cache->spare_bytes += bytes;
}

/* The newest block of `bytes` bytes, or when it may be larger the smallest that will do; sets
 * `bytes` to what it has. NULL: none. */
static void *spare_take(weight_cache *cache, size_t *bytes, bool larger)
{
    size_t found = cache->spare_count;
    for (size_t i = cache->spare_count; i-- > 0;) {
        const size_t has = cache->spares[i].bytes;
        if (has == *bytes || (larger && has > *bytes &&
                              (found == cache->spare_count || has < cache->spares[found].bytes))) {
            found = i;
        }
        if (has == *bytes) {
            break;
        }
    }
    if (found == cache->spare_count) {
        return NULL;
    }
    void *block = cache->spares[found].block;
    *bytes = cache->spares[found].bytes;
    spare_remove(cache, found);
    return block;
}

void weight_cache_destroy(weight_cache **result)
{
    weight_cache *cache = *result;
    if (!cache) {
        return;
    }
    for (size_t b = 0; b < cache->bucket_count; b++) {
        while (cache->buckets[b]) {
            entry *e = cache->buckets[b];
            cache->buckets[b] = e->next;
            memory_free_aligned(e->block, e->bytes);
            memory_free(e);
        }
    }
    spare_shrink(cache, 0);
    pthread_cond_destroy(&cache->packed);
    pthread_mutex_destroy(&cache->mutex);
    memory_free(cache->buckets);
    memory_free(cache);
    *result = NULL;
}

/* ---- the map; the lock is held ------------------------------------------------------------- */

static size_t hash(const weight_expression *weight, uint64_t format,
                   const float scalars[SCALAR_COUNT])
{
    uint64_t h = (uint64_t)(uintptr_t)weight ^ format * UINT64_C(0x9e3779b97f4a7c15);
    for (int s = 0; s < SCALAR_COUNT; s++) {
        uint32_t bits;
        memcpy(&bits, &scalars[s], sizeof bits);
        h = (h ^ bits) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return (size_t)(h ^ h >> 29);
}

static entry **bucket_of(weight_cache *cache, const weight_expression *weight, uint64_t format,
                         const float scalars[SCALAR_COUNT])
{
    return &cache->buckets[hash(weight, format, scalars) & (cache->bucket_count - 1)];
}

static entry *find(weight_cache *cache, const weight_expression *weight, uint64_t format,
                   const float scalars[SCALAR_COUNT])
{
    entry *e = *bucket_of(cache, weight, format, scalars);
    while (e && (e->weight != weight || e->format != format ||
                 memcmp(e->scalars, scalars, sizeof e->scalars) != 0)) {
        e = e->next;
    }
    return e;
}

/* Doubles the buckets when they fill up; without memory they just stay fuller. */
static void grow(weight_cache *cache)
{
    if (cache->entry_count < cache->bucket_count) {
        return;
    }
    entry **old = cache->buckets,
          **larger = memory_allocate(cache->bucket_count * 2, sizeof(entry *), NULL);
    if (!larger) {
        return;
    }
    size_t old_count = cache->bucket_count;
    cache->buckets = larger;
    cache->bucket_count *= 2;
    for (size_t b = 0; b < old_count; b++) {
        while (old[b]) {
            entry *e = old[b];
            old[b] = e->next;
            entry **bucket = bucket_of(cache, e->weight, e->format, e->scalars);
            e->next = *bucket;
            *bucket = e;
        }
    }
    memory_free(old);
}

/* Whether the same was asked for before, perhaps. */
static bool seen_before(weight_cache *cache, const weight_expression *weight, uint64_t format,
                        const float scalars[SCALAR_COUNT])
{
    const size_t bit = (hash(weight, format, scalars) >> 16) % SEEN_BITS;
    const uint64_t mask = UINT64_C(1) << bit % 64;
    if (cache->seen[bit / 64] & mask) {
        return true;
    }
    if (++cache->seen_count > SEEN_BITS / 2) {
        memset(cache->seen, 0, sizeof cache->seen);
        cache->seen_count = 1;
    }
    cache->seen[bit / 64] |= mask;
    return false;
}

/* ---- the list of what is not in use; the lock is held -------------------------------------- */

static void list_append(weight_cache *cache, entry *e)
{
    e->more_recent = NULL;
    e->less_recent = cache->most_recent;
    *(e->less_recent ? &e->less_recent->more_recent : &cache->least_recent) = e;
    cache->most_recent = e;
}

static void list_remove(weight_cache *cache, entry *e)
{
    *(e->less_recent ? &e->less_recent->more_recent : &cache->least_recent) = e->more_recent;
    *(e->more_recent ? &e->more_recent->less_recent : &cache->most_recent) = e->less_recent;
}

/* Takes an entry that is not in the list out of the map and frees it. */
static void drop(weight_cache *cache, entry *e)
{
    entry **link = bucket_of(cache, e->weight, e->format, e->scalars);
    while (*link != e) {
        link = &(*link)->next;
    }
    *link = e->next;
    cache->entry_count--;
    cache->bytes -= e->bytes;
    spare_add(cache, e->block, e->bytes);
    memory_free(e);
}

/* Learns from an entry that is used again. The longest interval counts, but is forgotten slowly.
 * One much shorter than a walk through a full cache is no picture's (a weight used twice in one,
 * two sessions side by side). */
static void note_interval(weight_cache *cache, uint64_t interval)
{
    if (!cache->was_full || interval < cache->entry_count / 4) {
        return;
    }
    cache->interval -= cache->interval / 64;
    if (cache->interval < interval) {
        cache->interval = interval;
    }
}

/* The entry that has not been used for much longer than others, or NULL. */
static entry *forgotten(const weight_cache *cache)
{
    entry *oldest = cache->least_recent;
    return oldest && cache->interval > 0 && cache->uses - oldest->used > 2 * cache->interval
               ? oldest
               : NULL;
}

/* Drops forgotten entries until `wanted` more bytes fit; false when they do not. */
static bool fits(weight_cache *cache, size_t wanted)
{
    while (wanted > cache->limit || cache->bytes > cache->limit - wanted) {
        entry *e = forgotten(cache);
        cache->was_full = true;
        if (!e) {
            return false;
        }
        list_remove(cache, e);
        drop(cache, e);
    }
    return true;
}

/* Drops what is not in use down to `limit`, as far as possible: what is forgotten, then what was
 * used last, for it is needed latest. */
static void shrink(weight_cache *cache, size_t limit)
{
    while (cache->least_recent && cache->bytes > limit) {
        entry *e = forgotten(cache);
        e = e ? e : cache->most_recent;
        cache->was_full = true;
        list_remove(cache, e);
        drop(cache, e);
    }
}

/* ---- using entries ------------------------------------------------------------------------- */

/* Adds an entry that is not ready, with its block. Gives everything unused back before it gives up.
 * The lock is held. */
static entry *add(weight_cache *cache, const weight_expression *weight, uint64_t format,
                  const float scalars[SCALAR_COUNT], size_t bytes, onestep_error *error)
{
    const bool known = !cache->keep_repeated || seen_before(cache, weight, format, scalars);
    if (!size_add(bytes, BLOCK_HEADER, &bytes)) {
        error_set(error, ONESTEP_ERROR_MEMORY, "weight %s: the packed size overflows",
                  weight->name);
        return NULL;
    }
    entry *e = memory_allocate(1, sizeof *e, error);
    if (!e) {
        return NULL;
    }
    const bool kept = known && fits(cache, bytes);
    e->block = spare_take(cache, &bytes, !kept);
    const bool unused = cache->least_recent || cache->spare_count > 0;
    if (!e->block) {
        e->block = memory_allocate_aligned(bytes, unused ? NULL : error);
    }
    if (!e->block && unused) {
        shrink(cache, 0);
        spare_shrink(cache, 0);
        e->block = memory_allocate_aligned(bytes, error);
    }
    if (!e->block) {
        memory_free(e);
        return NULL;
    }
    memcpy(e->block, &e, sizeof e);
    e->weight = weight;
    e->format = format;
    e->bytes = bytes;
    e->references = 1;
    e->kept = kept;
    e->used = cache->uses;
    memcpy(e->scalars, scalars, sizeof e->scalars);
    grow(cache);
    entry **bucket = bucket_of(cache, weight, format, scalars);
    e->next = *bucket;
    *bucket = e;
    cache->entry_count++;
    cache->bytes += bytes;
    spare_shrink(cache, spare_most(cache));
    return e;
}

/* The weight's pages have been read into the packed form and need not stay in memory. */
static void release_sources(const weight_expression *weight)
{
    for (unsigned t = 0; t < weight->term_count; t++) {
        const named_tensor *parts[] = {weight->terms[t].full, weight->terms[t].down,
                                       weight->terms[t].up};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            if (parts[i] && parts[i]->mapped) {
                mapped_memory_release(parts[i]->data, parts[i]->bytes);
            }
        }
    }
}

onestep_status weight_cache_acquire(weight_cache *cache, const weight_expression *weight,
                                    uint64_t format, size_t bytes, const float *scalars,
                                    weight_packer packer, void *context, const void **packed,
                                    onestep_error *error)
{
    *packed = NULL;
    float key[SCALAR_COUNT];
    unsigned mask = weight_scalar_mask(weight);
    for (unsigned s = 0; s < SCALAR_COUNT; s++) {
        key[s] = mask >> s & 1 ? scalars[s] : 0.0f;
    }
    pthread_mutex_lock(&cache->mutex);
    cache->uses++;
    entry *e;
    while ((e = find(cache, weight, format, key)) && !e->ready) {
        pthread_cond_wait(&cache->packed, &cache->mutex);
    }
    if (e) {
        if (e->references++ == 0) {
            list_remove(cache, e);
        }
        note_interval(cache, cache->uses - e->used);
        e->used = cache->uses;
        e->kept = true;
        pthread_mutex_unlock(&cache->mutex);
        *packed = (uint8_t *)e->block + BLOCK_HEADER;
        return ONESTEP_OK;
    }
    e = add(cache, weight, format, key, bytes, error);
    bool release = cache->release_sources;
    pthread_mutex_unlock(&cache->mutex);
    if (!e) {
        return ONESTEP_ERROR_MEMORY;
    }
    void *result = (uint8_t *)e->block + BLOCK_HEADER;
    onestep_status status = packer(context, weight, scalars, result, error);
    if (release) {
        release_sources(weight);
    }
    pthread_mutex_lock(&cache->mutex);
    if (status == ONESTEP_OK) {
        e->ready = true;
        *packed = result;
    } else {
        drop(cache, e);
    }
    pthread_cond_broadcast(&cache->packed);
    pthread_mutex_unlock(&cache->mutex);
    return status;
}

void weight_cache_release(weight_cache *cache, const void *packed)
{
    if (!packed) {
        return;
    }
    entry *e;
    memcpy(&e, (const uint8_t *)packed - BLOCK_HEADER, sizeof e);
    pthread_mutex_lock(&cache->mutex);
    if (--e->references == 0) {
        if (e->kept) {
            list_append(cache, e);
            shrink(cache, cache->limit);
        } else {
            drop(cache, e);
        }
    }
    pthread_mutex_unlock(&cache->mutex);
}

void weight_cache_set_limit(weight_cache *cache, size_t limit)
{
    pthread_mutex_lock(&cache->mutex);
    cache->limit = limit;
    shrink(cache, limit);
    pthread_mutex_unlock(&cache->mutex);
}

void weight_cache_release_sources(weight_cache *cache, bool release)
{
    pthread_mutex_lock(&cache->mutex);
    cache->release_sources = release;
    pthread_mutex_unlock(&cache->mutex);
}

void weight_cache_keep_repeated(weight_cache *cache, bool repeated)
{
    pthread_mutex_lock(&cache->mutex);
    cache->keep_repeated = repeated;
    pthread_mutex_unlock(&cache->mutex);
}

size_t weight_cache_bytes(weight_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    size_t bytes = cache->bytes;
    pthread_mutex_unlock(&cache->mutex);
    return bytes;
}
