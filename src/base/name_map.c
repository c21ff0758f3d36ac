/* A hash map from byte strings to 32-bit values: open addressing over SipHash-2-4 (Aumasson and
 * Bernstein 2012) with a random key a map, so that nobody can prepare names that collide. */
#include "base/base.h"

#include <string.h>
#include <sys/random.h>

typedef struct name_entry {
    uint64_t hash;
    size_t offset, length; /* into name_map.names */
    uint32_t value;
} name_entry;

struct name_map {
    uint64_t key[2];
    name_entry *entries;
    size_t count, entry_capacity;
    uint32_t *slots;   /* 0: free, else 1 + index of the entry */
    size_t slot_count; /* a power of two, more than count */
    char *names;
    size_t name_bytes, name_capacity;
};

static uint64_t rotate_left(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate_left(v[1], 13) ^ v[0];
    v[0] = rotate_left(v[0], 32);
    v[2] += v[3];
    v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate_left(v[1], 17) ^ v[2];
    v[2] = rotate_left(v[2], 32);
}

static uint64_t sip_hash(const uint64_t key[2], const char *bytes, size_t length)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    for (size_t position = 0; position <= length; position += 8) {
        uint64_t word = 0;
        if (length - position >= 8) {
            memcpy(&word, bytes + position, 8); /* in the machine's order: the hash stays here */
        } else {
            for (size_t i = 0; i < length - position; ++i) {
                word |= (uint64_t)(uint8_t)bytes[position + i] << 8 * i;
            }
            word |= (uint64_t)length << 56;
        }
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; ++i) {
        sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

onestep_status name_map_create(name_map **map, onestep_error *error)
{
    *map = NULL;
    name_map *made = memory_allocate(1, sizeof *made, error);
    if (made == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    if (getrandom(made->key, sizeof made->key, GRND_NONBLOCK) != (ssize_t)sizeof made->key) {
        /* No entropy yet (early boot): addresses and time are better than a fixed key. */
        made->key[0] = (uint64_t)(uintptr_t)made * 0x9e3779b97f4a7c15;
        made->key[1] = (uint64_t)(monotonic_seconds() * 1e9) ^ (uint64_t)(uintptr_t)&made;
    }
    *map = made;
    return ONESTEP_OK;
}

void name_map_destroy(name_map **map)
{
    if (*map != NULL) {
        memory_free((*map)->entries);
        memory_free((*map)->slots);
        memory_free((*map)->names);
        memory_free(*map);
        *map = NULL;
    }
}

/* The slot of the name, or the free slot where it belongs. Needs a free slot. */
static size_t find_slot(const name_map *map, uint64_t hash, const char *name, size_t length)
{
    size_t slot = hash & (map->slot_count - 1);
    for (;; slot = (slot + 1) & (map->slot_count - 1)) {
        if (map->slots[slot] == 0) {
            return slot;
        }
        const name_entry *entry = &map->entries[map->slots[slot] - 1];
        if (entry->hash == hash && entry->length == length &&
            (length == 0 || memcmp(map->names + entry->offset, name, length) == 0)) {
            return slot;
        }
    }
}

static onestep_status grow_slots(name_map *map, onestep_error *error)
{
    size_t slot_count = size_maximum(map->slot_count * 2, 16);
    uint32_t *slots = memory_allocate(slot_count, sizeof *slots, error);
    if (slots == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    for (size_t i = 0; i < map->count; ++i) {
        size_t slot = map->entries[i].hash & (slot_count - 1);
        while (slots[slot] != 0) {
            slot = (slot + 1) & (slot_count - 1);
        }
        slots[slot] = (uint32_t)(i + 1);
    }
    memory_free(map->slots);
    map->slots = slots;
    map->slot_count = slot_count;
    return ONESTEP_OK;
}

/* Room for one more entry and `length` more bytes of names. */
static onestep_status grow_storage(name_map *map, size_t length, onestep_error *error)
{
    if (map->count == map->entry_capacity) {
        size_t capacity = size_maximum(map->entry_capacity * 2, 8);
        name_entry *entries = memory_resize(map->entries, capacity, sizeof *entries, error);
        if (entries == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        map->entries = entries;
        map->entry_capacity = capacity;
    }
    size_t needed;
    if (!size_add(map->name_bytes, length, &needed)) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "out of memory: names too long");
    }
    if (needed > map->name_capacity) {
        size_t capacity = size_maximum(needed, size_maximum(map->name_capacity * 2, 128));
        char *names = memory_resize(map->names, capacity, 1, error);
        if (names == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        map->names = names;
        map->name_capacity = capacity;
    }
    return ONESTEP_OK;
}

onestep_status name_map_put(name_map *map, const char *name, size_t length, uint32_t value,
                            onestep_error *error)
{
    /* At most three quarters of the slots are taken. */
    if (map->count + 1 > map->slot_count / 4 * 3) {
        if (map->count >= UINT32_MAX / 4 * 3 - 1) {
            return error_set(error, ONESTEP_ERROR_MEMORY, "out of memory: too many names (%zu)",
                             map->count);
        }
        onestep_status status = grow_slots(map, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    uint64_t hash = sip_hash(map->key, name, length);
    size_t slot = find_slot(map, hash, name, length);
    if (map->slots[slot] != 0) {
        map->entries[map->slots[slot] - 1].value = value;
        return ONESTEP_OK;
    }
    onestep_status status = grow_storage(map, length, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (length > 0) {
        memcpy(map->names + map->name_bytes, name, length);
    }
    map->entries[map->count] =
        (name_entry){.hash = hash, .offset = map->name_bytes, .length = length, .value = value};
    map->name_bytes += length;
    map->count += 1;
    map->slots[slot] = (uint32_t)map->count;
    return ONESTEP_OK;
}

bool name_map_get(const name_map *map, const char *name, size_t length, uint32_t *value)
{
    if (map->count == 0) {
        return false;
    }
    size_t slot = find_slot(map, sip_hash(map->key, name, length), name, length);
    if (map->slots[slot] == 0) {
        return false;
    }
    *value = map->entries[map->slots[slot] - 1].value;
    return true;
}

size_t name_map_count(const name_map *map)
{
    return map->count;
}
