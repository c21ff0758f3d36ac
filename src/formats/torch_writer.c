/* The archive that torch.save writes: stored entries, data aligned to 64 bytes by a padding field
 * in the local headers, sizes in data descriptors, zip64 end records. */
#include "formats/pickle.h"
#include "formats/pickle_writer.h"
#include "formats/text.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define DATA_ALIGNMENT ((size_t)64)
#define FLAGS          0x0808 /* data descriptor, UTF-8 names */
#define FOLDER_LIMIT   200

typedef struct zip_record {
    uint64_t header_offset;
    file_part data;
    uint32_t crc;
    size_t name_offset, name_length; /* in zip_writer.names */
} zip_record;

/* What lies between the data of two entries is gathered in one buffer; entry i's data follows
 * piece i of it. */
typedef struct zip_writer {
    const char *folder;
    text_buffer bytes, names;
    size_t *piece_ends; /* in `bytes`, one an entry */
    zip_record *records;
    size_t count, capacity;
    uint64_t offset; /* in the file */
    uint64_t name_hash;
    uint32_t data_crc;
} zip_writer;

static void put(zip_writer *writer, uint64_t number, size_t count)
{
    text_buffer_append(&writer->bytes, &number, count);
    writer->offset += count;
}

static bool is_wide(uint64_t number)
{
    return number >= UINT32_MAX;
}

/* The part of a central or local header from `version needed` to the sizes. */
static void put_common(zip_writer *writer, uint32_t crc, uint64_t size)
{
    uint64_t narrow = is_wide(size) ? UINT32_MAX : size;
    put(writer, 0, 2); /* version needed: torch says 0 */
    put(writer, FLAGS, 2);
    put(writer, 0, 2); /* stored */
    put(writer, 0, 4); /* no time: the same model gives the same file */
    put(writer, crc, 4);
    put(writer, narrow, 4);
    put(writer, narrow, 4);
}

static void put_local_header(zip_writer *writer, const char *name, size_t length)
{
    put(writer, 0x04034b50, 4);
    put_common(writer, 0, 0); /* the sizes follow the data */
    put(writer, length, 2);
    /* The padding field "FB" makes the data begin at a multiple of 64. */
    uint64_t end = writer->offset + 2 + length + 4;
    size_t padding = (size_t)((DATA_ALIGNMENT - end % DATA_ALIGNMENT) % DATA_ALIGNMENT);
    put(writer, 4 + padding, 2);
    text_buffer_append(&writer->bytes, name, length);
    writer->offset += length;
    put(writer, 'F' | 'B' << 8, 2);
    put(writer, padding, 2);
    for (size_t i = 0; i < padding; i++) {
        put(writer, 'Z', 1);
    }
}

static void put_descriptor(zip_writer *writer, const zip_record *record)
{
    size_t width = is_wide(record->data.size) ? 8 : 4;
    put(writer, 0x08074b50, 4);
    put(writer, record->crc, 4);
    put(writer, record->data.size, width);
    put(writer, record->data.size, width);
}

static onestep_status add_entry(zip_writer *writer, const char *name, const void *data, size_t size,
                                onestep_error *error)
{
    if (writer->count == writer->capacity) {
        size_t capacity = size_maximum(64, writer->capacity * 2);
        zip_record *records = memory_resize(writer->records, capacity, sizeof(*records), error);
        if (records == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        writer->records = records;
        size_t *ends = memory_resize(writer->piece_ends, capacity, sizeof(*ends), error);
        if (ends == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        writer->piece_ends = ends;
        writer->capacity = capacity;
    }
    zip_record record = {.header_offset = writer->offset,
                         .data = {data, size},
                         .name_offset = writer->names.length,
                         .crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, size)};
    text_buffer_print(&writer->names, "%s/%s", writer->folder, name);
    if (writer->names.failed) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the archive's directory");
    }
    record.name_length = writer->names.length - record.name_offset;
    put_local_header(writer, writer->names.data + record.name_offset, record.name_length);
    writer->piece_ends[writer->count] = writer->bytes.length;
    writer->offset += size;
    put_descriptor(writer, &record);
    writer->records[writer->count++] = record;
    for (const char *c = name; *c != '\0'; c++) {
        writer->name_hash = (writer->name_hash ^ (uint8_t)*c) * 0x100000001b3u; /* FNV-1a */
    }
    writer->data_crc = (uint32_t)crc32_z(writer->data_crc, (const Bytef *)&record.crc, 4);
    return ONESTEP_OK;
}

static void put_central_header(zip_writer *writer, const zip_record *record)
{
    uint64_t wide[3];
    size_t wide_count = 0;
    if (is_wide(record->data.size)) {
        wide[wide_count++] = record->data.size;
        wide[wide_count++] = record->data.size;
    }
    if (is_wide(record->header_offset)) {
        wide[wide_count++] = record->header_offset;
    }
    put(writer, 0x02014b50, 4);
    put(writer, 0, 2); /* made by: torch says 0 */
    put_common(writer, record->crc, record->data.size);
    put(writer, record->name_length, 2);
    put(writer, wide_count == 0 ? 0 : 4 + 8 * wide_count, 2);
    put(writer, 0, 2); /* no comment */
    put(writer, 0, 2); /* disk */
    put(writer, 0, 2); /* internal and */
    put(writer, 0, 4); /* external attributes */
    put(writer, is_wide(record->header_offset) ? UINT32_MAX : record->header_offset, 4);
    text_buffer_append(&writer->bytes, writer->names.data + record->name_offset,
                       record->name_length);
    writer->offset += record->name_length;
    if (wide_count > 0) {
        put(writer, 0x0001, 2); /* zip64 */
        put(writer, 8 * wide_count, 2);
        for (size_t i = 0; i < wide_count; i++) {
            put(writer, wide[i], 8);
        }
    }
}

static void put_directory(zip_writer *writer)
{
    uint64_t begin = writer->offset;
    for (size_t i = 0; i < writer->count; i++) {
        put_central_header(writer, &writer->records[i]);
    }
    uint64_t end = writer->offset, size = end - begin;
    put(writer, 0x06064b50, 4); /* zip64 end record */
    put(writer, 44, 8);         /* bytes that follow */
    put(writer, 0x031e, 2);     /* made by */
    put(writer, 45, 2);         /* version needed */
    put(writer, 0, 8);          /* disks */
    put(writer, writer->count, 8);
    put(writer, writer->count, 8);
    put(writer, size, 8);
    put(writer, begin, 8);
    put(writer, 0x07064b50, 4); /* its locator */
    put(writer, 0, 4);
    put(writer, end, 8);
    put(writer, 1, 4);
    put(writer, 0x06054b50, 4); /* end record */
    put(writer, 0, 4);
    uint64_t count = writer->count > UINT16_MAX ? UINT16_MAX : writer->count;
    put(writer, count, 2);
    put(writer, count, 2);
    put(writer, is_wide(size) ? UINT32_MAX : size, 4);
    put(writer, is_wide(begin) ? UINT32_MAX : begin, 4);
    put(writer, 0, 2);
}

/* The entries in torch's order. */
static onestep_status add_entries(zip_writer *writer, const pickle_stream *stream,
                                  char serialization_id[48], onestep_error *error)
{
    static const struct {
        const char *name, *data;
    } fixed[] = {{".format_version", "1"}, {".storage_alignment", "64"}, {"byteorder", "little"}};
    onestep_status status =
        add_entry(writer, "data.pkl", stream->bytes.data, stream->bytes.length, error);
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && status == ONESTEP_OK; i++) {
        status = add_entry(writer, fixed[i].name, fixed[i].data, strlen(fixed[i].data), error);
    }
    for (size_t i = 0; i < stream->storage_count && status == ONESTEP_OK; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "data/%zu", i);
        status =
            add_entry(writer, name, stream->storages[i].bytes, stream->storages[i].size, error);
    }
    if (status == ONESTEP_OK) {
        status = add_entry(writer, "version", "3\n", 2, error);
    }
    if (status == ONESTEP_OK) {
        (void)snprintf(serialization_id, 48, "%020llu%020u", (unsigned long long)writer->name_hash,
                       writer->data_crc);
        status = add_entry(writer, ".data/serialization_id", serialization_id,
                           strlen(serialization_id), error);
    }
    return status;
}

/* The folder inside the archive is the file's stem, when that is plain text. */
static void name_folder(char folder[FOLDER_LIMIT], const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash == NULL ? path : slash + 1;
    const char *dot = strrchr(base, '.');
    size_t length = dot == NULL || dot == base ? strlen(base) : (size_t)(dot - base);
    bool plain = length > 0 && length < FOLDER_LIMIT;
    for (size_t i = 0; i < length && plain; i++) {
        plain = base[i] > 0x20 && base[i] < 0x7F && base[i] != '\\';
    }
    (void)snprintf(folder, FOLDER_LIMIT, "%.*s", plain ? (int)length : 7, plain ? base : "archive");
}

static onestep_status write_archive(const char *path, const pickle_stream *stream,
                                    onestep_error *error)
{
    char folder[FOLDER_LIMIT], serialization_id[48];
    name_folder(folder, path);
    zip_writer writer = {.folder = folder, .name_hash = 0xcbf29ce484222325u};
    file_part *parts = NULL;
    onestep_status status = add_entries(&writer, stream, serialization_id, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
        goto done;
    }
    put_directory(&writer);
    if (writer.bytes.failed) {
        status =
            error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory for the archive's headers", path);
        goto done;
    }
    parts = memory_allocate(2 * writer.count + 1, sizeof(*parts), error);
    if (parts == NULL) {
        status = ONESTEP_ERROR_MEMORY;
        goto done;
    }
    size_t begin = 0;
    for (size_t i = 0; i < writer.count; i++) {
        parts[2 * i] = (file_part){writer.bytes.data + begin, writer.piece_ends[i] - begin};
        parts[2 * i + 1] = writer.records[i].data;
        begin = writer.piece_ends[i];
    }
    parts[2 * writer.count] = (file_part){writer.bytes.data + begin, writer.bytes.length - begin};
    status = file_write_parts(path, parts, 2 * writer.count + 1, error);
done:
    memory_free(parts);
    memory_free(writer.records);
    memory_free(writer.piece_ends);
    text_buffer_free(&writer.bytes);
    text_buffer_free(&writer.names);
    return status;
}

onestep_status torch_write(const char *path, pickle_tree *tree, const pickle_value *root,
                           onestep_error *error)
{
    if (tree->failure.code != ONESTEP_OK) {
        return error_set(error, tree->failure.code, "%s: %s", path, tree->failure.message);
    }
    pickle_stream stream = {0};
    onestep_status status = pickle_write(&stream, root, error);
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", path);
    } else {
        status = write_archive(path, &stream, error);
    }
    pickle_stream_free(&stream);
    return status;
}
