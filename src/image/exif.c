/* The two things this project wants of EXIF: the orientation and a comment. */
#include "image/image_private.h"

#include <string.h>

enum {
    TAG_ORIENTATION = 0x0112,
    TAG_EXIF_FOLDER = 0x8769,
    TAG_USER_COMMENT = 0x9286,
    TYPE_BYTE = 1,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_UNDEFINED = 7,
    ENTRY_SIZE = 12,
    CHARSET_SIZE = 8 /* UserComment begins with the name of its character set */
};

/* A TIFF block: all reading goes through the checked functions below. */
typedef struct tiff_block {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
} tiff_block;

static bool tiff_read16(const tiff_block *tiff, size_t offset, uint32_t *value)
{
    if (tiff->size < 2 || offset > tiff->size - 2) {
        return false;
    }
    const uint8_t *bytes = tiff->bytes + offset;
    *value = tiff->big_endian ? (uint32_t)(bytes[0] << 8 | bytes[1])
                              : (uint32_t)(bytes[1] << 8 | bytes[0]);
    return true;
}

static bool tiff_read32(const tiff_block *tiff, size_t offset, uint32_t *value)
{
    if (tiff->size < 4 || offset > tiff->size - 4) {
        return false;
    }
    *value = tiff->big_endian ? read_be32(tiff->bytes + offset) : read_le32(tiff->bytes + offset);
    return true;
}

/* Opens the block; *folder is the offset of its first image file directory. */
static bool tiff_open(tiff_block *tiff, const uint8_t *bytes, size_t size, uint32_t *folder)
{
    while (size >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0) {
        bytes += 6;
        size -= 6;
    }
    if (size < 8) {
        return false;
    }
    *tiff = (tiff_block){.bytes = bytes, .size = size, .big_endian = bytes[0] == 'M'};
    if (memcmp(bytes, "II*\0", 4) != 0 && memcmp(bytes, "MM\0*", 4) != 0) {
        return false;
    }
    return tiff_read32(tiff, 4, folder);
}

/* The offset of the entry with that tag, when it lies in the block. */
static bool tiff_find(const tiff_block *tiff, uint32_t folder, uint32_t tag, size_t *entry)
{
    uint32_t count;
    if (!tiff_read16(tiff, folder, &count)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t offset = (size_t)folder + 2 + (size_t)i * ENTRY_SIZE;
        uint32_t found;
        if (!tiff_read16(tiff, offset, &found)) {
            return false;
        }
        if (found == tag) {
            *entry = offset;
            return tiff->size - offset >= ENTRY_SIZE;
        }
    }
    return false;
}

/* The value of an entry that holds one whole number. */
static bool tiff_entry_number(const tiff_block *tiff, size_t entry, uint32_t *value)
{
    uint32_t type, count;
    if (!tiff_read16(tiff, entry + 2, &type) || !tiff_read32(tiff, entry + 4, &count) ||
        count != 1) {
        return false;
    }
    switch (type) {
    case TYPE_BYTE:
        *value = tiff->bytes[entry + 8];
        return true;
    case TYPE_SHORT:
        return tiff_read16(tiff, entry + 8, value);
    case TYPE_LONG:
        return tiff_read32(tiff, entry + 8, value);
    default:
        return false;
    }
}

unsigned exif_orientation(const uint8_t *bytes, size_t size)
{
    tiff_block tiff;
    uint32_t folder, value;
    size_t entry;
    if (!tiff_open(&tiff, bytes, size, &folder) ||
        !tiff_find(&tiff, folder, TAG_ORIENTATION, &entry) ||
        !tiff_entry_number(&tiff, entry, &value) || value < 1 || value > 8) {
        return 1;
    }
    return value;
}

bool exif_user_comment(const uint8_t *bytes, size_t size, const uint8_t **text, size_t *length)
{
    tiff_block tiff;
    uint32_t folder, inner, type, count, offset;
    size_t entry;
    if (!tiff_open(&tiff, bytes, size, &folder) ||
        !tiff_find(&tiff, folder, TAG_EXIF_FOLDER, &entry) ||
        !tiff_entry_number(&tiff, entry, &inner) ||
        !tiff_find(&tiff, inner, TAG_USER_COMMENT, &entry) ||
        !tiff_read16(&tiff, entry + 2, &type) || !tiff_read32(&tiff, entry + 4, &count) ||
        !tiff_read32(&tiff, entry + 8, &offset)) {
        return false;
    }
    if (type != TYPE_UNDEFINED || count <= CHARSET_SIZE || offset > tiff.size ||
        count > tiff.size - offset || memcmp(tiff.bytes + offset, "ASCII\0\0\0", CHARSET_SIZE)) {
        return false;
    }
    *text = tiff.bytes + offset + CHARSET_SIZE;
    *length = count - CHARSET_SIZE;
    return true;
}

static void append16(byte_sink *sink, uint32_t value)
{
    uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    byte_sink_append(sink, bytes, sizeof bytes);
}

static void append32(byte_sink *sink, uint32_t value)
{
    append16(sink, value & 0xffff);
    append16(sink, value >> 16);
}

/* A directory of one entry, at the current end of the block. */
static void append_folder(byte_sink *sink, uint32_t tag, uint32_t type, uint32_t count,
                          uint32_t value)
{
    append16(sink, 1);
    append16(sink, tag);
    append16(sink, type);
    append32(sink, count);
    append32(sink, value);
    append32(sink, 0); /* no further directory */
}

void exif_write_user_comment(byte_sink *sink, const char *text, size_t length)
{
    enum { HEADER_SIZE = 8, FOLDER_SIZE = 2 + ENTRY_SIZE + 4 };
    byte_sink_append(sink, "II*\0", 4);
    append32(sink, HEADER_SIZE);
    append_folder(sink, TAG_EXIF_FOLDER, TYPE_LONG, 1, HEADER_SIZE + FOLDER_SIZE);
    append_folder(sink, TAG_USER_COMMENT, TYPE_UNDEFINED, (uint32_t)(length + CHARSET_SIZE),
                  HEADER_SIZE + 2 * FOLDER_SIZE);
    byte_sink_append(sink, "ASCII\0\0\0", CHARSET_SIZE);
    byte_sink_append(sink, text, length);
}
