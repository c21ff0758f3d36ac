/* Values as a protocol 2 pickle, as torch.save has it. */
#ifndef FORMATS_PICKLE_WRITER_H
#define FORMATS_PICKLE_WRITER_H

#include "formats/formats.h"

/* What torch_write puts into an archive: the pickle, and storage N is entry data/N. */
typedef struct pickle_stream {
    text_buffer bytes;
    file_part *storages; /* borrowed from the tensors */
    size_t storage_count, storage_capacity;
} pickle_stream;

/* Zero-initialise the stream; release it with pickle_stream_free, also after a failure. */
onestep_status pickle_write(pickle_stream *stream, const pickle_value *root,
                            onestep_error *error) MUST_USE;
void pickle_stream_free(pickle_stream *stream);

#endif
