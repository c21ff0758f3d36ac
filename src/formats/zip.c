/* Zip archives by their central directory (PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5). */
#include "formats/zip.h"

#include "formats/text.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define ENTRY_LIMIT ((size_t)262144)

#define LOCAL_HEADER    30
#define CENTRAL_HEADER  46
#define END_RECORD      22
#define END64_LOCATOR   20
#define END64_RECORD    56
#define COMMENT_LIMIT   65535
#define SIGNATURE_LOCAL 0x04034b50u
#define SIGNATURE_ENTRY 0x02014b50u
#define SIGNATURE_END   0x06054b50u
#define SIGNATURE_END64 0x06064b50u
#define SIGNATURE_WHERE 0x07064b50u /* the zip64 locator */
#define EXTRA_ZIP64     0x0001
#define FLAG_ENCRYPTED  0x0001
#define FLAG_PATCH      0x0020
#define FLAG_MASKED     0x2000 /* the directory itself is encrypted */

static uint16_t read16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t read32(const uint8_t *bytes)
{
    return read16(bytes) | (uint32_t)read16(bytes + 2) << 16;
}

static uint64_t read64(const uint8_t *bytes)
{
    return read32(bytes) | (uint64_t)read32(bytes + 4) << 32;
}

/* Where the central directory lies: [offset, offset + size), before `limit`. */
typedef struct directory {
    uint64_t offset, size, count;
} directory;

static onestep_status cut_off(onestep_error *error)
{
    return error_set(error, ONESTEP_ERROR_FORMAT,
                     "zip: there is no end record: the file is cut off or damaged");
}

/* The zip64 end record, which holds what does not fit the plain one. */
static onestep_status find_directory64(const uint8_t *bytes, size_t end, directory *found,
                                       size_t *limit, onestep_error *error)
{
    const uint8_t *locator = bytes + end - END64_LOCATOR;
    uint64_t offset = read64(locator + 8);
    if (end < END64_LOCATOR + END64_RECORD || offset > end - END64_LOCATOR - END64_RECORD ||
        read32(bytes + offset) != SIGNATURE_END64) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "zip: the zip64 end record is damaged");
    }
    const uint8_t *record = bytes + offset;
    if (read32(locator + 4) != 0 || read32(record + 16) != 0 || read32(record + 20) != 0 ||
        read64(record + 24) != read64(record + 32)) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "zip: archives in several parts are not read");
    }
    *found = (directory){read64(record + 48), read64(record + 40), read64(record + 32)};
    *limit = (size_t)offset;
    return ONESTEP_OK;
}

static onestep_status find_directory(const uint8_t *bytes, size_t size, directory *found,
                                     onestep_error *error)
{
    if (size < END_RECORD) {
        return cut_off(error);
    }
    /* The end record is followed by a comment of a length that it gives. */
    size_t end = size - END_RECORD;
    size_t lowest = end - size_minimum(end, COMMENT_LIMIT);
    while (read32(bytes + end) != SIGNATURE_END ||
           read16(bytes + end + 20) != size - END_RECORD - end) {
        if (end == lowest) {
            return cut_off(error);
        }
        end--;
    }
    const uint8_t *record = bytes + end;
    size_t limit = end;
    if (end >= END64_LOCATOR && read32(bytes + end - END64_LOCATOR) == SIGNATURE_WHERE) {
        onestep_status status = find_directory64(bytes, end, found, &limit, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    } else {
        if (read16(record + 4) != 0 || read16(record + 6) != 0 ||
            read16(record + 8) != read16(record + 10)) {
            return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                             "zip: archives in several parts are not read");
        }
        *found = (directory){read32(record + 16), read32(record + 12), read16(record + 10)};
    }
    if (found->offset > limit || found->size != limit - found->offset) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: the directory (%llu bytes at %llu) does not end at its end record "
                         "(%zu)",
                         (unsigned long long)found->size, (unsigned long long)found->offset, limit);
    }
    if (found->count > ENTRY_LIMIT || found->count > found->size / CENTRAL_HEADER) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: %llu entries in a directory of %llu bytes (at most %zu are read)",
                         (unsigned long long)found->count, (unsigned long long)found->size,
                         ENTRY_LIMIT);
    }
    return ONESTEP_OK;
}

/* One record of the central directory. */
typedef struct central_record {
    const char *name;
    size_t name_length;
    uint16_t flags, method;
    uint32_t crc;
    uint64_t packed_size, size, header_offset;
    uint32_t disk;
} central_record;

/* Takes the 64-bit values from the zip64 extra field for those that are all ones. */
static bool read_zip64_extra(central_record *record, const uint8_t *extra, size_t extra_length)
{
    while (extra_length >= 4) {
        size_t length = read16(extra + 2);
        if (length > extra_length - 4) {
            return false;
        }
        if (read16(extra) == EXTRA_ZIP64) {
            const uint8_t *next = extra + 4;
            uint64_t *wide[] = {&record->size, &record->packed_size, &record->header_offset};
            for (size_t i = 0; i < 3; i++) {
                if (*wide[i] != UINT32_MAX) {
                    continue;
                }
                if (length < 8) {
                    return false;
                }
                *wide[i] = read64(next);
                next += 8;
                length -= 8;
            }
            if (record->disk == UINT16_MAX) {
                if (length < 4) {
                    return false;
                }
                record->disk = read32(next);
            }
            return true;
        }
        extra += 4 + length;
        extra_length -= 4 + length;
    }
    return extra_length == 0;
}

/* Reads the record at *position and moves on. */
static onestep_status read_central(const uint8_t *bytes, size_t end, size_t *position,
                                   central_record *record, onestep_error *error)
{
    const uint8_t *header = bytes + *position;
    size_t left = end - *position;
    if (left < CENTRAL_HEADER || read32(header) != SIGNATURE_ENTRY) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: no directory entry at byte %zu: the file is damaged", *position);
    }
    size_t name_length = read16(header + 28), extra_length = read16(header + 30);
    size_t total = CENTRAL_HEADER + name_length + extra_length + read16(header + 32);
    if (total > left) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: the directory entry at byte %zu is cut off", *position);
    }
    *record = (central_record){.name = (const char *)header + CENTRAL_HEADER,
                               .name_length = name_length,
                               .flags = read16(header + 8),
                               .method = read16(header + 10),
                               .crc = read32(header + 16),
                               .packed_size = read32(header + 20),
                               .size = read32(header + 24),
                               .disk = read16(header + 34),
                               .header_offset = read32(header + 42)};
    if (!read_zip64_extra(record, header + CENTRAL_HEADER + name_length, extra_length)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: the extra field of the directory entry at byte %zu is damaged",
                         *position);
    }
    *position += total;
    return ONESTEP_OK;
}

static onestep_status check_storable(const central_record *record, const char *shown,
                                     onestep_error *error)
{
    if ((record->flags & (FLAG_ENCRYPTED | FLAG_PATCH | FLAG_MASKED)) != 0) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "zip: entry %s is encrypted or a patch: such archives are not read",
                         shown);
    }
    if (record->method != 0) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "zip: entry %s is compressed (%s, method %u): torch.save stores without "
                         "compression; load it with PyTorch and save it again",
                         shown, record->method == 8 ? "deflated" : "not deflate", record->method);
    }
    if (record->packed_size != record->size || record->disk != 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: entry %s is stored, but of %llu bytes as %llu", shown,
                         (unsigned long long)record->size, (unsigned long long)record->packed_size);
    }
    return ONESTEP_OK;
}

/* An entry with the place of its local header, to find overlaps. */
typedef struct placed_entry {
    size_t begin, end; /* local header to the end of the data */
    size_t index;
} placed_entry;

/* Finds the data behind the local header; `limit` is where the directory begins. */
static onestep_status place_entry(const uint8_t *bytes, size_t limit, const central_record *record,
                                  const char *shown, zip_entry *entry, placed_entry *place,
                                  onestep_error *error)
{
    if (limit < LOCAL_HEADER || record->header_offset > limit - LOCAL_HEADER ||
        read32(bytes + record->header_offset) != SIGNATURE_LOCAL) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: entry %s has no local header at byte %llu", shown,
                         (unsigned long long)record->header_offset);
    }
    size_t begin = (size_t)record->header_offset;
    const uint8_t *header = bytes + begin;
    size_t name_length = read16(header + 26);
    size_t data = begin + LOCAL_HEADER + name_length + read16(header + 28);
    if (data > limit || record->size > limit - data) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: entry %s (%llu bytes at %zu) reaches beyond byte %zu, where the "
                         "directory begins",
                         shown, (unsigned long long)record->size, data, limit);
    }
    if (name_length != record->name_length ||
        memcmp(header + LOCAL_HEADER, record->name, name_length) != 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: entry %s has another name in its local header", shown);
    }
    *entry = (zip_entry){.name = record->name,
                         .name_length = record->name_length,
                         .data = bytes + data,
                         .size = (size_t)record->size,
                         .crc = record->crc};
    place->begin = begin;
    place->end = data + entry->size;
    return ONESTEP_OK;
}

static int compare_places(const void *a, const void *b)
{
    const placed_entry *first = a, *second = b;
    return (first->begin > second->begin) - (first->begin < second->begin);
}

static onestep_status read_entries(zip_archive *archive, const uint8_t *bytes,
                                   const directory *found, placed_entry *places,
                                   onestep_error *error)
{
    char shown[TEXT_SHOWN];
    size_t position = (size_t)found->offset, end = (size_t)(found->offset + found->size);
    for (size_t i = 0; i < (size_t)found->count; i++) {
        central_record record = {0};
        onestep_status status = read_central(bytes, end, &position, &record, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        text_shown(shown, record.name, record.name_length);
        status = check_storable(&record, shown, error);
        if (status == ONESTEP_OK) {
            status = place_entry(bytes, (size_t)found->offset, &record, shown, &archive->entries[i],
                                 &places[i], error);
        }
        if (status != ONESTEP_OK) {
            return status;
        }
        places[i].index = i;
        if (zip_archive_find(archive, record.name, record.name_length) != NULL) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "zip: entry %s is there twice", shown);
        }
        status = name_map_put(archive->names, record.name, record.name_length, (uint32_t)i, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        archive->count++;
    }
    if (position != end) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "zip: %zu bytes after the last directory entry belong to nothing",
                         end - position);
    }
    qsort(places, archive->count, sizeof(*places), compare_places);
    for (size_t i = 1; i < archive->count; i++) {
        if (places[i].begin < places[i - 1].end) {
            const zip_entry *entry = &archive->entries[places[i].index];
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "zip: entry %s begins inside the entry before it",
                             text_shown(shown, entry->name, entry->name_length));
        }
    }
    return ONESTEP_OK;
}

onestep_status zip_archive_parse(zip_archive **archive, const uint8_t *bytes, size_t size,
                                 onestep_error *error)
{
    *archive = NULL;
    directory found = {0};
    onestep_status status = find_directory(bytes, size, &found, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    zip_archive *created = memory_allocate(1, sizeof(*created), error);
    placed_entry *places = memory_allocate((size_t)found.count, sizeof(*places), error);
    if (created == NULL || places == NULL) {
        status = ONESTEP_ERROR_MEMORY;
        goto done;
    }
    created->entries = memory_allocate((size_t)found.count, sizeof(*created->entries), error);
    status =
        created->entries == NULL ? ONESTEP_ERROR_MEMORY : name_map_create(&created->names, error);
    if (status == ONESTEP_OK) {
        status = read_entries(created, bytes, &found, places, error);
    }
    if (status == ONESTEP_OK) {
        *archive = created;
        created = NULL;
    }
done:
    memory_free(places);
    zip_archive_destroy(&created);
    return status;
}

void zip_archive_destroy(zip_archive **archive)
{
    if (*archive != NULL) {
        name_map_destroy(&(*archive)->names);
        memory_free((*archive)->entries);
        memory_free(*archive);
        *archive = NULL;
    }
}

const zip_entry *zip_archive_find(const zip_archive *archive, const char *name, size_t length)
{
    uint32_t index;
    return name_map_get(archive->names, name, length, &index) ? &archive->entries[index] : NULL;
}

bool zip_entry_is_intact(const zip_entry *entry)
{
    return crc32_z(crc32_z(0, NULL, 0), entry->data, entry->size) == entry->crc;
}
