/* The directory of a zip archive whose entries are stored, as torch.save writes it. */
#ifndef FORMATS_ZIP_H
#define FORMATS_ZIP_H

#include "base/base.h"

typedef struct zip_entry {
    const char *name; /* in the archive: not NUL-terminated */
    size_t name_length;
    const uint8_t *data; /* in the archive */
    size_t size;
    uint32_t crc;
} zip_entry;

typedef struct zip_archive {
    zip_entry *entries; /* in the directory's order */
    size_t count;
    name_map *names;
} zip_archive;

/* Reads the central directory (zip64 too) of `bytes`, which outlive the archive. Compressed,
 * encrypted, overlapping, duplicate and out-of-range entries are errors. */
onestep_status zip_archive_parse(zip_archive **archive, const uint8_t *bytes, size_t size,
                                 onestep_error *error) MUST_USE;
void zip_archive_destroy(zip_archive **archive);
/* NULL when missing. */
const zip_entry *zip_archive_find(const zip_archive *archive, const char *name, size_t length);
/* Whether the data has the directory's CRC-32. */
bool zip_entry_is_intact(const zip_entry *entry);

#endif
