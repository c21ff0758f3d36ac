/* Zip directories, and torch archives in them. */
#include "formats/fuzz_walk.h"
#include "formats/weight_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_begin();
    zip_archive *archive;
    onestep_error error;
    if (zip_archive_parse(&archive, bytes, size, &error) == ONESTEP_OK) {
        size_t total = 0;
        for (size_t i = 0; i < archive->count; i++) {
            const zip_entry *entry = &archive->entries[i];
            fuzz_read(entry->name, entry->name_length);
            fuzz_read(entry->data, entry->size);
            fuzz_require(zip_archive_find(archive, entry->name, entry->name_length) == entry);
            total += entry->size;
        }
        fuzz_require(total <= size); /* nothing counts twice */
    }
    zip_archive_destroy(&archive);
    weight_file *file;
    if (weight_file_parse(&file, "/nonexistent/fuzz", bytes, size, &error) == ONESTEP_OK) {
        fuzz_walk_file(file);
    }
    weight_file_close(&file);
    return 0;
}
